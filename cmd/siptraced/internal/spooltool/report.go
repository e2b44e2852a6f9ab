package spooltool

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// JSON writes the report as one object.
func (r *Report) JSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// mostLines is how many lines of one kind are printed.
const mostLines = 100

// Text writes the report for a reader, the verdict last.
func (r *Report) Text(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s%s\n", r.Dir, amount(r.Messages, r.Batches), humanize.IBytes(uint64(r.Bytes)), span(r.Oldest, r.Newest))
	if r.PID != 0 {
		fmt.Fprintf(&b, "process %d works on it, and it goes on: this is what was there a moment ago. What a loss of power would cost now is not to be seen from here: siptrace.sinks says it (unsynced_rows)\n", r.PID)
	}
	for i := range r.Shards {
		r.Shards[i].text(&b)
	}
	if len(r.Sinks) > 0 {
		b.WriteString("\n")
		t := newTable(&b, "sink", "shard", "done up to batch", "messages waiting", "the oldest from")
		for _, s := range r.Sinks {
			t.row(s.Name, s.Shard, s.Done, humanize.Comma(int64(s.Waiting)), moment(s.Oldest))
		}
		t.flush()
	}
	b.WriteString("\n")
	lines(&b, "note: ", r.Notes)
	lines(&b, "WRONG: ", r.Wrong)
	b.WriteString(r.verdict())
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *Report) verdict() string {
	lost := ""
	if n := r.Lost - r.Known; n > 0 {
		lost = fmt.Sprintf(", and %s messages are lost", humanize.Comma(int64(n)))
	}
	switch n := len(r.Wrong); {
	case n == 0:
		return "nothing is wrong\n"
	case r.PID != 0:
		return fmt.Sprintf("%d wrong%s. siptraced reads on behind what is damaged. Once it is stopped, siptraced spool repair %s mends what can be mended\n", n, lost, r.Dir)
	default:
		return fmt.Sprintf("%d wrong%s. siptraced starts with it as it is; siptraced spool repair %s mends what can be mended, and keeps what is damaged\n", n, lost, r.Dir)
	}
}

func (s *Shard) text(b *strings.Builder) {
	fmt.Fprintf(b, "\nshard %d: %s, %s%s\n", s.Index, amount(s.Messages, s.Batches), humanize.IBytes(uint64(s.Bytes)), span(s.Oldest, s.Newest))
	for _, t := range s.Timelines {
		fmt.Fprintf(b, "  timeline %s up to batch %d\n", t.ID, t.Last)
	}
	t := newTable(b, "  file", "batches", "messages", "size", "from", "to", "index")
	for i, g := range s.Segments {
		if i == mostLines {
			t.row(fmt.Sprintf("  ... and %d more (--json has them all)", len(s.Segments)-i), "", "", "", "", "", "")
			break
		}
		batches := "none"
		if g.Batches > 0 {
			batches = fmt.Sprintf("%d–%d", g.First, g.Last)
		}
		t.row("  "+g.File, batches, humanize.Comma(int64(g.Messages)), humanize.IBytes(uint64(g.Size)), moment(g.Oldest), moment(g.Newest), g.Index)
	}
	t.flush()
}

func lines(b *strings.Builder, prefix string, list []string) {
	for i, text := range list {
		if i == mostLines {
			fmt.Fprintf(b, "%s... and %d more (--json has them all)\n", prefix, len(list)-i)
			return
		}
		b.WriteString(prefix + text + "\n")
	}
}

func amount(messages, batches uint64) string {
	return fmt.Sprintf("%s messages in %s batches", humanize.Comma(int64(messages)), humanize.Comma(int64(batches)))
}

func span(oldest, newest time.Time) string {
	if oldest.IsZero() {
		return ""
	}
	return ", taken in from " + moment(oldest) + " to " + moment(newest)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}

// table aligns columns.
type table struct{ out *tabwriter.Writer }

func newTable(out io.Writer, head ...any) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
	}
	_, _ = t.out.Write([]byte(strings.Join(text, "\t") + "\n")) // into memory
}

func (t *table) flush() { _ = t.out.Flush() }
