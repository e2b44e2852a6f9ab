package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestScenarioEnds(t *testing.T) {
	var order []string
	note := func(s string) func() { return func() { order = append(order, s) } }
	tests := []struct {
		name string
		run  func(*bench)
		ok   bool
		want []string
	}{
		{"in order", func(b *bench) {
			b.Cleanup(note("first"))
			b.Cleanup(note("second"))
		}, true, []string{"second", "first"}},
		{"a section ends what it started", func(b *bench) {
			b.Cleanup(note("outer"))
			b.section(func() { b.Cleanup(note("inner")) })
			note("between")()
			b.Cleanup(note("later"))
		}, true, []string{"inner", "between", "later", "outer"}},
		{"what belongs to the outer level outlives the section", func(b *bench) {
			b.section(func() {
				b.Cleanup(note("inner"))
				b.at(0, func() { b.Cleanup(note("outer")) })
			})
			note("between")()
		}, true, []string{"inner", "between", "outer"}},
		{"a failure in a section", func(b *bench) {
			b.Cleanup(note("outer"))
			b.section(func() {
				b.Cleanup(note("inner"))
				b.Fatalf("%s", "it broke")
			})
			note("never")()
		}, false, []string{"inner", "outer"}},
		{"an error does not end it", func(b *bench) {
			b.Errorf("not good")
			note("goes on")()
		}, false, []string{"goes on"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			order = nil
			var out, log bytes.Buffer
			b := &bench{out: &out, log: &log}
			if ok := b.runScenario("test", tt.run); ok != tt.ok {
				t.Errorf("got %v, want %v", ok, tt.ok)
			}
			if !slices.Equal(order, tt.want) {
				t.Errorf("got %q, want %q", order, tt.want)
			}
			if !tt.ok && !strings.Contains(log.String(), "bench: test: ") {
				t.Errorf("log: %q", log.String())
			}
		})
	}
}

func TestFigures(t *testing.T) {
	var out bytes.Buffer
	b := &bench{out: &out, log: &out}
	b.runScenario("one", func(b *bench) { b.add(mariaDB, "rate", 12345.678, "rows/s") })
	b.runScenario("two", func(b *bench) {
		b.add(mariaDB, "rate", 1, "rows/s")
		b.add(mariaDB, "rate", 2, "rows/s")
	})
	want := `{"scenario":"one","database":"mariadb","name":"rate","value":12346,"unit":"rows/s"}` + "\n"
	if got, _, _ := strings.Cut(out.String(), `{"scenario":"two"`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if v, ok := b.figure("two", mariaDB, "rate"); !ok || v != 2 {
		t.Errorf("the latest figure: got %v, %v", v, ok)
	}
	if v, ok := b.figure("two", sqliteDB, "rate"); ok {
		t.Errorf("a figure that is not there: got %v", v)
	}
}

func TestTable(t *testing.T) {
	tab := table{title: "Title", head: []string{"name", "value"}}
	tab.add("a", 12345.6)
	tab.add("longer", 0.0123)
	tab.add("ü", true)
	var out bytes.Buffer
	tab.print(&out)
	want := "\nTitle\n  name     value\n  a        12346\n  longer  0.0123\n  ü         true\n\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestStatistics(t *testing.T) {
	list := []float64{5, 1, 4, 2, 3}
	if got := median(list); got != 3 {
		t.Errorf("median: got %v, want 3", got)
	}
	if got := median([]float64{4, 1}); got != 2.5 {
		t.Errorf("median of two: got %v, want 2.5", got)
	}
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(i+1))
	}
	for p, want := range map[float64]float64{50: 50, 95: 95, 99: 99, 100: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("percentile %v: got %v, want %v", p, got, want)
		}
	}
	if got := percentile([]float64{7}, 95); got != 7 {
		t.Errorf("percentile of one value: got %v, want 7", got)
	}
}

func TestRepeat(t *testing.T) {
	tests := []struct {
		name   string
		quiet  time.Duration
		others []float64 // of the measurements, the last one for all that follow
		stop   int       // the measurement after which there is nothing more to do, from 1; 0 is none
		want   int
	}{
		{"each counts", 0, []float64{50}, 0, 2},
		{"undisturbed", time.Second, []float64{1}, 0, 2},
		{"one disturbed", time.Second, []float64{1, 50, 1}, 0, 3},
		{"always disturbed", time.Second, []float64{50}, 0, 6},
		{"done at once", time.Second, []float64{1}, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &bench{opt: options{rounds: 2, quiet: tt.quiet}}
			got := 0
			b.repeat(func() (float64, bool) {
				others := tt.others[min(got, len(tt.others)-1)]
				got++
				return others, got != tt.stop
			})
			if got != tt.want {
				t.Errorf("got %d measurements, want %d", got, tt.want)
			}
		})
	}
}
