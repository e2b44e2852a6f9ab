// Command report reads the output of `go test -json` and says what matters of
// it: a line for each package, the output of what failed, and the numbers.
//
//	go test -json ./... | go run ./tests/report -tally FILE
//
// The numbers are added to the tally file, whose total the last line of
// tests/run is. Tests with subtests count as well as these; a package that does
// not build, or that fails outside of its tests, counts as one failure;
// benchmarks count as tests. The exit code is 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	tally := flag.String("tally", "", "file that the numbers are added to")
	total := flag.Bool("total", false, "print the total of the tally file and read nothing")
	flag.Parse()
	if *total {
		t, err := readTally(*tally)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(t)
		return
	}
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := appendTally(*tally, r.numbers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if r.numbers.failed > 0 {
		os.Exit(1)
	}
}

// numbers counts tests.
type numbers struct{ passed, failed, skipped int }

// String is the form of the last line of tests/run.
func (n numbers) String() string {
	s := fmt.Sprintf("%d passed, %d failed", n.passed, n.failed)
	if n.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", n.skipped)
	}
	return s
}

func (n *numbers) add(m numbers) {
	n.passed += m.passed
	n.failed += m.failed
	n.skipped += m.skipped
}

// event is one line of `go test -json`; see go doc test2json and go help
// buildjson.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

type report struct {
	out      io.Writer
	numbers  numbers
	packages map[string]*result
}

// result is what is known of one package.
type result struct {
	numbers numbers
	output  map[string]*strings.Builder // by test; "" is the package's own
	failed  []string
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: make(map[string]*result)}
}

func (r *report) of(pkg string) *result {
	p := r.packages[pkg]
	if p == nil {
		p = &result{output: make(map[string]*strings.Builder)}
		r.packages[pkg] = p
	}
	return p
}

var benchmark = regexp.MustCompile(`^Benchmark\S*\s+\d+\s+[\d.]+ ns/op`)

func (r *report) read(in io.Reader) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, sc.Text()) // a word of the go command itself
			continue
		}
		r.take(e)
	}
	return sc.Err()
}

func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
		return
	case "build-fail":
		return // the package fails as well
	}
	p := r.of(e.Package)
	switch e.Action {
	case "output":
		b := p.output[e.Test]
		if b == nil {
			b = &strings.Builder{}
			p.output[e.Test] = b
		}
		b.WriteString(e.Output)
		// The line of a benchmark may come in two pieces.
		if line := lastLine(b.String()); benchmark.MatchString(line) && strings.HasSuffix(line, "\n") {
			p.numbers.passed++
			fmt.Fprint(r.out, line)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.finish(e, p)
			return
		}
		switch e.Action {
		case "pass":
			p.numbers.passed++
			delete(p.output, e.Test)
		case "fail":
			p.numbers.failed++
			p.failed = append(p.failed, e.Test)
		case "skip":
			p.numbers.skipped++
			fmt.Fprintf(r.out, "skip  %s %s\n", e.Package, e.Test)
		}
	}
}

// finish says how a package went.
func (r *report) finish(e event, p *result) {
	if e.Action == "fail" && p.numbers.failed == 0 {
		p.numbers.failed++ // it did not build, or it crashed or timed out
		p.failed = append(p.failed, "")
		for name := range p.output { // whose tests have no end
			if name != "" {
				p.failed = append(p.failed, name)
			}
		}
	}
	r.numbers.add(p.numbers)
	switch {
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL  %-40s %7.1fs  %v\n", e.Package, e.Elapsed, p.numbers)
	case p.numbers != numbers{}:
		fmt.Fprintf(r.out, "ok    %-40s %7.1fs  %v\n", e.Package, e.Elapsed, p.numbers)
	}
	slices.Sort(p.failed)
	for _, name := range p.failed {
		text := ""
		if b := p.output[name]; b != nil {
			text = said(b.String())
		}
		title := name
		switch {
		case name == "":
			title = "(package)"
		case text == "":
			continue // it failed because a subtest did
		}
		fmt.Fprintf(r.out, "----- %s %s\n%s\n", e.Package, title, text)
	}
	if len(p.failed) > 0 {
		fmt.Fprintln(r.out, "-----")
	}
}

func lastLine(s string) string {
	return s[1+strings.LastIndexByte(strings.TrimSuffix(s, "\n"), '\n'):]
}

var frame = regexp.MustCompile(`^\s*(=== |--- )`)

// said is an output without what go test frames it with.
func said(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !frame.MatchString(line) || strings.HasSuffix(line, ":\n") { // not the title of a tail
			b.WriteString(line)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func appendTally(file string, n numbers) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, n.passed, n.failed, n.skipped); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func readTally(file string) (numbers, error) {
	var total numbers
	b, err := os.ReadFile(file)
	if err != nil {
		return total, err
	}
	for line := range strings.Lines(string(b)) {
		var n numbers
		if _, err := fmt.Sscan(line, &n.passed, &n.failed, &n.skipped); err != nil {
			return total, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		total.add(n)
	}
	return total, nil
}
