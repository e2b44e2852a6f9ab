package daemon

import (
	"os"
	"strings"
	"testing"
	"time"
)

// COUNTERS.md has every gauge, and marks it as one.
func TestGauges(t *testing.T) {
	text, err := os.ReadFile("../../COUNTERS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Gauges\n")
	dir := t.TempDir()
	t.Chdir(dir) // where siptraced.db is
	r := start(t, dir, quiet+"destinations: [{uri: \"sip:127.0.0.1:9\", name: NAME}]\n")
	r.await(t, "a store that is connected", func(map[string]uint64) bool { return r.Sink("store").Connected })
	gauges := 0
	for name := range r.counters.Snapshot() {
		if !r.counters.IsGauge(name) {
			continue
		}
		gauges++
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("COUNTERS.md does not have %s among the gauges", name)
		}
	}
	if gauges < 10 {
		t.Errorf("there are %d gauges only", gauges)
	}
	if s := r.Sink("store"); s.LastError != "" || s.ByRules || time.Since(s.Since) > time.Minute {
		t.Errorf("store: %+v", s)
	}
	if u := r.Spool(); u.Place == "" || u.MaxBytes == 0 || !u.HasDisk || u.DiskFree == 0 {
		t.Errorf("spool: %+v", u)
	}
	if s := r.Sink("mirror.nobody"); s.LastError != "" || s.Connected {
		t.Errorf("a sink that is not there: %+v", s)
	}
}
