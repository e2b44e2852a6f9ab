package main

import (
	"slices"
	"testing"

	"siptraced/tests/servers"
)

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks(`goos: linux
cpu: Example
BenchmarkDecode/v1-2         	100000000	        11.5 ns/op	3473.72 MB/s	       0 B/op	       0 allocs/op
BenchmarkBuild-2             	 9000000	       97 ns/op	      16 B/op	       2 allocs/op
BenchmarkHandle              	 9000000	       836.2 ns/op
PASS
ok  	siptraced/hep	1.2s
`)
	want := []benchmark{
		{name: "v1", ns: 11.5},
		{name: "Build", ns: 97, bytes: 16, allocs: 2},
		{name: "Handle", ns: 836.2},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestGrowth(t *testing.T) {
	look := func(received, pending int64) servers.Counters {
		return servers.Counters{servers.Received: received, servers.Pending: pending}
	}
	tests := []struct {
		name          string
		before, after servers.Counters
		want          float64
	}{
		{"steady", look(50000, 300), look(100000, 310), 0},
		{"what is under way is no backlog", look(50000, 0), look(100000, 900), 0},
		{"growing", look(50000, 1000), look(100000, 11000), 0.2},
		{"nothing came", look(50000, 1000), look(50000, 1000), 0},
	}
	for _, tt := range tests {
		if got := growth(tt.before, tt.after, 10000); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSustained(t *testing.T) {
	good := measured{loss: 0.0005, growth: 0.01, drain: 0.2}
	tests := []struct {
		name   string
		change func(*measured)
		want   bool
	}{
		{"good", func(*measured) {}, true},
		{"loss", func(m *measured) { m.loss = 0.001 }, false},
		{"backlog", func(m *measured) { m.growth = 0.05 }, false},
		{"late", func(m *measured) { m.drain = 1.5 }, false},
	}
	for _, tt := range tests {
		m := good
		tt.change(&m)
		if got := m.sustained(); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
