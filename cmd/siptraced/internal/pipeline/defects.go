package pipeline

import (
	"sync/atomic"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/compat/sipmsg"
)

// defects are the counters accepted.sip_defect.NAME, one for each bit of [sipmsg.Defect]: messages that were taken
// for tracing although something is wrong with them.
type defects []*atomic.Uint64

func newDefects(c *counters.Set) defects {
	var list defects
	for _, name := range sipmsg.DefectNames() {
		list = append(list, c.Counter("accepted.sip_defect."+name))
	}
	return list
}

// add counts one message that has the defects d.
func (list defects) add(d sipmsg.Defect) {
	for bit := range d.Bits() {
		list[bit].Add(1)
	}
}
