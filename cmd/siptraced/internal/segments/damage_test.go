package segments

import (
	"math/rand/v2"
	"testing"
)

func TestDamage(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var d damage
		missing := map[uint64]bool{}
		for range 40 {
			s := span{from: rng.Uint64N(100)}
			s.to = s.from + 1 + rng.Uint64N(10)
			want := uint64(0)
			for k := s.from; k < s.to; k++ {
				if !missing[k] {
					missing[k], want = true, want+1
				}
			}
			if got := d.add(s); got != want {
				t.Fatalf("seed %d: %d more with %v, want %d: %v", seed, got, s, want, d.spans)
			}
		}
		for i := 1; i < len(d.spans); i++ {
			if d.spans[i].from <= d.spans[i-1].to {
				t.Fatalf("seed %d: they touch: %v", seed, d.spans)
			}
		}
		d.forget(50)
		if len(d.spans) > 0 && d.spans[0].to <= 50 {
			t.Errorf("seed %d: not forgotten: %v", seed, d.spans)
		}
	}
}
