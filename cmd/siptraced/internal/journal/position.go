package journal

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is how far a sink came in a log, as Positions keep it under a PositionKey.
type Position struct {
	Seq   uint64 // done up to here
	Total uint64 // the Total of that entry; of no meaning where the log is not Exclusive
	Log   string // Log.ID
}

func (p Position) String() string { return fmt.Sprintf("%d %d %s", p.Seq, p.Total, p.Log) }

// ParsePosition reads what String wrote; ok is false for another text.
func ParsePosition(text string) (p Position, ok bool) {
	f := strings.Split(text, " ")
	if len(f) != 3 || f[2] == "" {
		return Position{}, false
	}
	var err, err2 error
	p.Log = f[2]
	p.Seq, err = strconv.ParseUint(f[0], 10, 64)
	p.Total, err2 = strconv.ParseUint(f[1], 10, 64)
	if err != nil || err2 != nil {
		return Position{}, false
	}
	return p, true
}

// What else Positions hold beside the positions of sinks: these keys begin so.
const (
	TotalPrefix = "taken." // of a shard, by the spool
	MetaPrefix  = "kept."  // texts of sinks, by the spool
	GonePrefix  = "gone."  // of a shard, by an engine
)

// PositionKey is where the position of a sink in a shard is kept.
func PositionKey(sink string, shard int) string { return sink + "." + strconv.Itoa(shard) }

// CutPositionKey takes a PositionKey apart; ok is false for another key.
func CutPositionKey(key string) (sink string, shard int, ok bool) {
	i := strings.LastIndexByte(key, '.')
	if i <= 0 {
		return "", 0, false
	}
	for _, prefix := range []string{TotalPrefix, MetaPrefix, GonePrefix} {
		if strings.HasPrefix(key, prefix) {
			return "", 0, false
		}
	}
	shard, err := strconv.Atoi(key[i+1:])
	if err != nil || shard < 0 {
		return "", 0, false
	}
	return key[:i], shard, true
}
