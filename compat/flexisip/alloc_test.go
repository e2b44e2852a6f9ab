//go:build !race

// The race detector has pools lose what is put back.

package flexisip

import "testing"

func TestMatchAllocates(t *testing.T) {
	m, r := read(t, register)
	for _, tt := range matchTests {
		f, err := Compile(tt.expr)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { f.Match(m, r) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.expr, n)
		}
	}
}
