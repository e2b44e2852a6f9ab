package vectors

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Tolerance is how far the time of a row may be from the recorded one. The
// module reads the clock twice, once for the row and once for the HEP packet;
// up to 14 ms lie between the two in the recordings.
const Tolerance = 20 * time.Millisecond

// Window is the time in which packets were sent. Rows of HEP1, which has no
// time, must have a time of it.
type Window struct{ From, To time.Time }

// Compare says where the rows, in the order of their ids, are not the wanted
// ones: missing and surplus rows, other columns, and rows of one call in
// another order than the packets. Nothing is said about the order of rows of
// different calls.
func Compare(wants []Want, rows []Row, sent Window) []string {
	var problems []string
	type key struct{ msg, from, to string }
	open := make(map[key][]int)
	for i := range wants {
		r := &wants[i].Row
		k := key{r.Msg, r.FromIP, r.ToIP}
		open[k] = append(open[k], i)
	}
	lastOf := make(map[string]int) // per call, the last wanted row that was seen
	var lastID int64
	for i := range rows {
		r := &rows[i]
		if r.ID <= lastID {
			problems = append(problems, fmt.Sprintf("row %d comes after row %d", r.ID, lastID))
		}
		lastID = r.ID
		k := key{r.Msg, r.FromIP, r.ToIP}
		list := open[k]
		if len(list) == 0 {
			problems = append(problems, "surplus row: "+describe(r))
			continue
		}
		w := &wants[list[0]]
		open[k] = list[1:]
		for _, p := range w.compare(r, sent) {
			problems = append(problems, fmt.Sprintf("row %d, of packet %d%s: %s", r.ID, w.Datagram, w.labelText(), p))
		}
		if last, ok := lastOf[r.CallID]; ok && last > list[0] {
			problems = append(problems, fmt.Sprintf("row %d, of packet %d, comes after the row of packet %d of the same call %q",
				r.ID, w.Datagram, wants[last].Datagram, r.CallID))
		}
		lastOf[r.CallID] = max(lastOf[r.CallID], list[0])
	}
	var missing []int
	for _, list := range open {
		missing = append(missing, list...)
	}
	slices.Sort(missing)
	for _, i := range missing {
		w := &wants[i]
		problems = append(problems, fmt.Sprintf("no row of packet %d%s: %s", w.Datagram, w.labelText(), describe(&w.Row)))
	}
	return problems
}

func (w *Want) compare(got *Row, sent Window) []string {
	var problems []string
	for _, c := range Columns {
		g, want := *got.Column(c), *w.Row.Column(c)
		if g != want && !slices.Contains(w.open, c) {
			problems = append(problems, fmt.Sprintf("%s: got %s, want %s", c, short(g), short(want)))
		}
	}
	at, err := got.Moment(w.location)
	if err != nil {
		return append(problems, err.Error())
	}
	const layout = "2006-01-02 15:04:05.000000"
	switch {
	case w.Time.IsZero():
		if at.Before(sent.From.Add(-time.Second)) || at.After(sent.To.Add(time.Second)) {
			problems = append(problems, fmt.Sprintf("time: got %s, want one between %s and %s",
				at.Format(layout), sent.From.In(w.location).Format(layout), sent.To.In(w.location).Format(layout)))
		}
		return problems
	case !at.Equal(w.Time):
		problems = append(problems, fmt.Sprintf("time: got %s, want that of the packet, %s",
			at.Format(layout), w.Time.In(w.location).Format(layout)))
	}
	if w.Recorded == nil {
		return problems
	}
	recorded, err := time.ParseInLocation(time.DateTime, w.Recorded.TimeStamp, w.location)
	if err != nil {
		return append(problems, err.Error())
	}
	recorded = recorded.Add(time.Duration(w.Recorded.TimeUS) * time.Microsecond) // which may be more than a second
	if d := at.Sub(recorded).Abs(); d > Tolerance {
		problems = append(problems, fmt.Sprintf("time: got %s, recorded %s, %v apart", at.Format(layout), recorded.Format(layout), d))
	}
	return problems
}

func (w *Want) labelText() string {
	if w.Label == "" {
		return ""
	}
	return " (" + w.Label + ")"
}

func describe(r *Row) string {
	first, _, _ := strings.Cut(r.Msg, "\n")
	return fmt.Sprintf("%s %s > %s, callid %s, %s", r.Direction, r.FromIP, r.ToIP, short(r.CallID), short(strings.TrimSpace(first)))
}

func short(s string) string {
	if len(s) > 120 {
		return fmt.Sprintf("%q... (%d bytes)", s[:120], len(s))
	}
	return fmt.Sprintf("%q", s)
}
