package cluster

import (
	"testing"
	"time"
)

func TestMergeGone(t *testing.T) {
	now := time.Unix(10_000_000, 0)
	for _, tt := range []struct {
		name, text string
		news       map[string]mark
		want       string
	}{
		{"first", "", map[string]mark{"b": {5, 7}, "a": {1, 2}}, "a 1 2 10000000\nb 5 7 10000000\n"},
		{"on", "a 1 2 9999999\n", map[string]mark{"a": {3, 9}}, "a 3 9 10000000\n"},
		{"late", "a 3 9 9999999\n", map[string]mark{"a": {1, 2}}, "a 3 9 9999999\n"},
		{"old", "a 3 9 7000000\nb 1 1 7500000\n", nil, "b 1 1 7500000\n"},
		{"damaged", "a 3\nx y z 1\n\nb 1 1 9999999\nc 99999999999999999999 1 1\n", nil, "b 1 1 9999999\n"},
	} {
		if got := mergeGone(tt.text, tt.news, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
