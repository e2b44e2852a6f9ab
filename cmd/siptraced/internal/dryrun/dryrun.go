package dryrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"siptraced/cmd/siptraced/internal/capture"
	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/pipeline"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/compat/siptrace"
	"siptraced/hep"
)

// Run prints, for each message of the file, what each rule did, and where the
// message would go.
func Run(cfg *config.Config, file string, out io.Writer) error {
	c := counters.New()
	rc := cfg.Rules
	rc.StateFile = "" // rules of a running siptraced are none of the configuration
	engine, err := rules.New(rules.Options{Config: rc, Counters: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer engine.Close()
	r := &run{out: out, counters: c, listed: "mirror"}
	for _, d := range cfg.Mirror.Destinations {
		if d.Static {
			r.listed += " " + d.Name
		}
	}
	in := pipeline.Rules{Params: cfg.Params, Own: siptrace.NewSockets(cfg.Own, cfg.Params.AdvertisedData()), Routing: cfg.Routing()}
	if d := engine.Decider(); d != nil {
		d = d.Explain(r.say)
		in.NewDecision = func() pipeline.Decision { return d.NewDecision() }
	}
	r.pipeline = pipeline.New(in, r, c)
	err = r.read(file)
	sums := map[string]int{}
	for _, what := range r.ended {
		sums[what]++
	}
	fmt.Fprintf(out, "%d messages", len(r.ended))
	for _, what := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(out, ", %d %s", sums[what], what)
	}
	fmt.Fprintln(out)
	return err
}

// read has the messages of a file handled; other traffic in it is passed over.
func (r *run) read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = capture.Read(f, func(i capture.Item) error {
		switch {
		case i.Packet != nil:
			r.handle(i.Packet)
		case i.Refused != nil:
			r.handle(&ingest.Packet{Data: i.Refused.Packet, Time: i.Refused.Time, Net: "udp"})
		case !errors.Is(i.Problem, capture.ErrOther):
			return fmt.Errorf("line %d: %w", i.Number, i.Problem)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// run is one dry run. It is the spool of its pipeline.
type run struct {
	out      io.Writer
	counters *counters.Set
	pipeline *pipeline.Pipeline
	listed   string   // the mirrors that take every message
	lines    []string // about the message in hand
	ended    []string // where each message ended
}

func (r *run) say(text string) { r.lines = append(r.lines, text) }

// handle has one packet handled, and prints what was said of it.
func (r *run) handle(p *ingest.Packet) {
	before := r.counters.Snapshot()
	r.lines = r.lines[:0]
	r.pipeline.Handle(p)
	ended := "taken"
	for name, n := range r.counters.Snapshot() {
		if n > before[name] && (strings.HasPrefix(name, "dropped.") || strings.HasPrefix(name, "rejected.")) {
			ended = name
		}
	}
	r.ended = append(r.ended, ended)
	first, _, _ := strings.Cut(strings.TrimSpace(string(payload(p.Data))), "\n")
	fmt.Fprintf(r.out, "%d %s %s > %s %.100s\n", len(r.ended), p.Time.UTC().Format("2006-01-02 15:04:05.000000"), p.Source, p.Local, strings.TrimSpace(first))
	for _, l := range r.lines {
		fmt.Fprintln(r.out, "    "+l)
	}
	if ended != "taken" {
		fmt.Fprintln(r.out, "    -> "+ended)
	}
}

// payload is the message in a packet, for people to see.
func payload(b []byte) []byte {
	var k hep.Packet
	if hep.Detect(b) != 0 && k.Decode(b) == nil {
		return k.Payload
	}
	return b
}

// Put says where a record would go (pipeline.Spool).
func (r *run) Put(rec *siptrace.Record) error {
	var to []string
	if rec.Sinks&siptrace.ToStore != 0 {
		table, users := rec.Table, ""
		if table == "" {
			table = "the table"
		}
		if rec.Users != nil {
			users = fmt.Sprintf(", traced_user %q", rec.Users)
		}
		to = append(to, fmt.Sprintf("%s (%d rows%s)", table, rec.Rows(), users))
	}
	for _, s := range []struct {
		sink siptrace.Sinks
		name string
	}{{siptrace.ToHEP, "HEP"}, {siptrace.ToSIP, "SIP"}} {
		if rec.Sinks&s.sink == 0 {
			continue
		}
		name := s.name + " to duplicate_uri"
		if rec.Destinations != nil {
			name = s.name + " to " + strings.Join(rec.Destinations, " ")
		}
		to = append(to, name)
	}
	if rec.Sinks&siptrace.ToListed != 0 {
		to = append(to, r.listed)
	}
	what := fmt.Sprintf("%s %s > %s", rec.Direction, rec.From, rec.To)
	if rec.Type == siptrace.TypeLog {
		what = fmt.Sprintf("log line %q", rec.Msg)
	}
	cid := ""
	if len(rec.CorrelationID) > 0 {
		cid = fmt.Sprintf(", correlation id %q", rec.CorrelationID)
	}
	r.say("-> " + what + " -> " + strings.Join(to, "; ") + cid)
	return nil
}

// Mark and Sync are of acknowledgements, which a capture does not ask for.
func (r *run) Mark() uint64 { return 0 }

// Sync does nothing.
func (r *run) Sync(context.Context, uint64) error { return nil }
