package servers

import (
	"testing"
)

// TestFreePorts asks for more ports than one block has: each is handed out once,
// and its block is leased, so that no other process hands it out.
func TestFreePorts(t *testing.T) {
	t.Parallel()
	seen := make(map[int]bool)
	for _, p := range FreePorts(t, 2*portBlock) {
		if seen[p] {
			t.Errorf("port %d was handed out twice", p)
		}
		seen[p] = true
		block := (p - firstPort) / portBlock
		if l, err := lease(blockName(block)); err == nil {
			_ = l.Close()
			t.Errorf("port %d: its block %d is not leased", p, block)
		}
	}
}

// TestClaim claims one name from two tests: the second has it when the first has
// ended, not before.
func TestClaim(t *testing.T) {
	t.Parallel()
	const name = "TestClaim"
	t.Run("first", func(t *testing.T) {
		Claim(t, name)
		if l, err := lease(name); err == nil {
			_ = l.Close()
			t.Error("the name can be claimed twice")
		}
	})
	Claim(t, name)
}
