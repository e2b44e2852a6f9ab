package store

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is wrong with a table is said once, and not by each writer.
func TestSaidOnce(t *testing.T) {
	f := newBoundedFile(t)
	f.look(t).create(t, "DROP INDEX sip_trace_callid_idx")
	r := f.run(t, 0, 0)
	for i := range 20 {
		r.putAt(t, time.Now(), fmt.Sprint("call", i), "a message")
	}
	r.await(t, "the rows", func(c map[string]uint64) bool { return c["store.written"] == 20 })
	r.stop(t)
	if n := strings.Count(r.log.String(), "msg=\"database: table\""); n != 1 {
		t.Errorf("said %d times what is wrong with the table:\n%s", n, r.log)
	}
}
