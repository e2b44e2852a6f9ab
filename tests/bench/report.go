package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// figure is one result, a line of JSON in the output.
type figure struct {
	Scenario string  `json:"scenario"`
	Database string  `json:"database,omitempty"`
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
}

// add keeps a figure; it is printed when the scenario ends.
func (b *bench) add(database, name string, value float64, unit string) {
	// Five digits are more than any of them is worth.
	value, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 5, 64), 64)
	if err != nil {
		b.Errorf("figure %s: %v", name, err)
	}
	b.results = append(b.results, figure{Scenario: b.scenario, Database: database, Name: name, Value: value, Unit: unit})
}

// figure looks for the latest figure of that name.
func (b *bench) figure(scenario, database, name string) (float64, bool) {
	for _, f := range slices.Backward(b.results) {
		if f.Scenario == scenario && f.Database == database && f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

func (b *bench) printFigures(list []figure) {
	for _, f := range list {
		text, err := json.Marshal(f)
		if err != nil {
			b.Errorf("figure %s: %v", f.Name, err)
			continue
		}
		fmt.Fprintf(b.out, "%s\n", text)
	}
}

// table is printed with its columns aligned: the first to the left, the others
// to the right.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = cell(c)
	}
	t.rows = append(t.rows, row)
}

// cell shortens a number to what its size can mean.
func cell(c any) string {
	v, ok := c.(float64)
	if !ok {
		return fmt.Sprint(c)
	}
	switch {
	case v >= 1000 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.4f", v)
	}
}

func (t *table) print(w io.Writer) {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	fmt.Fprintf(w, "\n%s\n", t.title)
	line := func(row []string) {
		var s strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i == 0 {
				s.WriteString("  " + c + pad)
			} else {
				s.WriteString("  " + pad + c)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(s.String(), " "))
	}
	line(t.head)
	for _, row := range t.rows {
		line(row)
	}
	fmt.Fprintln(w)
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile of a sorted list: the smallest value that p percent of the values
// do not exceed.
func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(p/100*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
