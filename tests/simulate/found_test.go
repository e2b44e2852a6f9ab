package simulate

import "testing"

// found are seeds that found something, and what that was. What a seed does changes with
// the program: beside each mistake of the program stands a test of its package, too.
var found = []struct {
	seed uint64
	what string
}{
	{453, "segments: what a failed write left came back after a loss of power, in the place of what was written again elsewhere"},
	{687, "a mirror gives messages up to make room, is killed before that is written down, and sends them behind later ones: allowed"},
	{847, "a clone of the machine does not count what the mirror gave up before: allowed"},
	{1285, "what a process left can't be synced when the next one begins, and the database lost it, too: allowed, and counted"},
	{1871, "segments: a segment whose end was gone was never given up, and the spool was full for ever"},
	{1982, "messages dropped to make room have numbers that were used before a loss of power: allowed"},
	{2080, "what a process left can't be synced when the next one begins: allowed, and counted"},
	{3003, "the same as 1871, while the spool closes"},
	{4109, "the database here lost a transaction and kept later ones: no server does"},
	{4824, "a process is killed while it stops in order: allowed"},
	{5641, "the same as 1982, of what is given up as all have it"},
}

func TestFound(t *testing.T) {
	s := base(t)
	for _, f := range found {
		t.Run(f.what, func(t *testing.T) {
			s.part(span{f.seed, f.seed}, func(r result) bool {
				report(t, r)
				return true
			})
		})
	}
}
