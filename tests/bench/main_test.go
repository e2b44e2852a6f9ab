package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be its own generator, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == generatorFlag {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	tests := []struct {
		name    string
		args    string
		check   func(options) bool
		failure string
	}{
		{"all", "", func(o options) bool { return len(o.names) == len(scenarios)-1 && o.messages == 1_000_000 }, ""},
		{"all and profile", "-cpu-profile f", func(o options) bool { return slices.Contains(o.names, "profile") }, ""},
		{"named", "-n 5000 idle drain", func(o options) bool { return slices.Equal(o.names, []string{"idle", "drain"}) && o.messages == 5000 }, ""},
		{"short", "-short", func(o options) bool { return o.messages == 20000 && o.length == time.Second && len(o.rates) == 2 }, ""},
		{"short, but", "-short -n 3000 -rates 700", func(o options) bool { return o.messages == 3000 && slices.Equal(o.rates, []int{700}) }, ""},
		{"settings", "-set a=b -set c=d", func(o options) bool { return slices.Equal(o.set, []string{"a=b", "c=d"}) }, ""},
		{"no such scenario", "drian", nil, `no scenario "drian"`},
		{"no such database", "-db oracle", nil, `-db "oracle"`},
		{"rates", "-rates 1000,x", nil, `-rates "1000,x"`},
		{"too few", "-n 10", nil, "-n starts at 1000"},
		{"profile without file", "profile", nil, "-cpu-profile FILE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			o, err := parse(strings.Fields(tt.args), &stderr)
			switch {
			case tt.failure == "" && err != nil:
				t.Fatal(err)
			case tt.failure == "" && !tt.check(o):
				t.Errorf("got %+v", o)
			case tt.failure != "" && (err == nil || !strings.Contains(err.Error(), tt.failure)):
				t.Errorf("got error %v, want one with %q", err, tt.failure)
			}
		})
	}
}

// TestSmoke runs the real thing, in small, with the database that needs no
// server.
func TestSmoke(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := "-short -db sqlite -n 2000 -length 500ms -rates 500 -latency-rate 1000 drain e2e clients relay"
	if code := run(strings.Fields(args), &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, stderr.String(), stdout.String())
	}
	got := map[string]figure{}
	for line := range strings.Lines(stdout.String()) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var f figure
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got[f.Scenario+" "+f.Name] = f
	}
	if f := got["relay HEP3 from udp to tcp at 1000/s, CPU"]; f.Value <= 0 {
		t.Errorf("relay: got %+v, want a value over 0", f)
	}
	for _, want := range []string{
		"drain drained", "drain plain client", "drain drained / plain client", "drain siptraced CPU",
		"e2e p95 of the time to the visible row, at 1000/s", "e2e " + bestRate, "e2e " + bestCPU,
	} {
		f, ok := got[want]
		if !ok || f.Value <= 0 || f.Database != sqliteDB || f.Unit == "" {
			t.Errorf("figure %q: got %+v, want a value over 0", want, f)
		}
	}
	for _, want := range []string{"Drain of 2000 messages", "From UDP to sqlite", "Plain clients: 2000 rows", "HEP3 over UDP passed on"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no table %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", stderr.String(), stdout.String())
	}
}
