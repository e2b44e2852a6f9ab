// Command report reads the output of `go test -json` and says what matters of
// it: a line for each package, the output of what failed, and the numbers.
//
//	go test -json ./... | go run ./tests/report -tally FILE -times FILE
//	go run ./tests/report -tally FILE -total
//	go run ./tests/report -times FILE -slowest 10
//
// The numbers are added to the tally file, whose total the last line of
// tests/run is. Tests with subtests count as well as these; a package that does
// not build, or that fails outside of its tests, counts as one failure;
// benchmarks count as tests. With -want, a test of that list that did not run is
// one failure more: what is chosen by name may have been renamed. The exit code
// is 1 if anything failed.
//
// The times file gets a line for each test without subtests. Both files may be
// written by several reports at once.
package main

import (
	"bufio"
	"cmp"
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
	times := flag.String("times", "", "file that the times of the tests are added to")
	want := flag.String("want", "", "names of tests, with commas, that have to run")
	total := flag.Bool("total", false, "print the total of the tally file and read nothing")
	slowest := flag.Int("slowest", 0, "print that many tests of the times file, the slowest first, and read nothing")
	flag.Parse()
	failed, err := false, error(nil)
	switch {
	case *total:
		err = printTotal(*tally)
	case *slowest > 0:
		err = printSlowest(*times, *slowest)
	default:
		failed, err = readStandardInput(*tally, *times, *want)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

func readStandardInput(tally, times, want string) (failed bool, err error) {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		return false, err
	}
	if want != "" {
		r.require(strings.Split(want, ","))
	}
	n := r.numbers
	if err := appendLines(tally, fmt.Sprintln(n.passed, n.failed, n.skipped)); err != nil {
		return false, err
	}
	return n.failed > 0, appendLines(times, r.times.String())
}

func printTotal(tally string) error {
	t, err := readTally(tally)
	if err == nil {
		fmt.Println(t)
	}
	return err
}

func printSlowest(times string, n int) error {
	list, err := readTimes(times)
	if err != nil {
		return err
	}
	for _, t := range list[:min(n, len(list))] {
		fmt.Printf("%7.1fs  %s %s\n", t.seconds, t.pkg, t.test)
	}
	return nil
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
	times    strings.Builder // lines of the times file
}

// result is what is known of one package.
type result struct {
	numbers numbers
	output  map[string]*strings.Builder // by test; "" is the package's own
	failed  []string
	seconds map[string]float64 // by test that has ended
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: make(map[string]*result)}
}

func (r *report) of(pkg string) *result {
	p := r.packages[pkg]
	if p == nil {
		p = &result{output: make(map[string]*strings.Builder), seconds: make(map[string]float64)}
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
		p.seconds[e.Test] = e.Elapsed
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
	r.note(e.Package, p)
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
			text = unframed(b.String())
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

// note adds the times of a package's tests; that of one with subtests is theirs.
func (r *report) note(pkg string, p *result) {
	parent := make(map[string]bool)
	for name := range p.seconds {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			parent[name[:i]] = true
		}
	}
	for name, s := range p.seconds {
		if !parent[name] {
			fmt.Fprintf(&r.times, "%.2f %s %s\n", s, pkg, name)
		}
	}
}

// require has each test of the list that did not run count as a failure.
func (r *report) require(names []string) {
	for _, name := range names {
		ran := false
		for _, p := range r.packages {
			_, ok := p.seconds[name]
			ran = ran || ok
		}
		if !ran {
			r.numbers.failed++
			fmt.Fprintf(r.out, "FAIL  %s did not run: was it renamed?\n", name)
		}
	}
}

func lastLine(s string) string {
	return s[1+strings.LastIndexByte(strings.TrimSuffix(s, "\n"), '\n'):]
}

var frame = regexp.MustCompile(`^\s*(=== |--- )`)

// unframed is an output without what go test frames it with.
func unframed(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !frame.MatchString(line) || strings.HasSuffix(line, ":\n") { // not the title of a tail
			b.WriteString(line)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

// appendLines adds lines to a file in one write, so that those of others stay
// apart. No file, no lines.
func appendLines(file, lines string) error {
	if file == "" || lines == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(lines); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// testTime is how long a test took.
type testTime struct {
	seconds   float64
	pkg, test string
}

// readTimes reads a times file, the slowest test first.
func readTimes(file string) ([]testTime, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []testTime
	for line := range strings.Lines(string(b)) {
		var t testTime
		if _, err := fmt.Sscan(line, &t.seconds, &t.pkg, &t.test); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		list = append(list, t)
	}
	slices.SortStableFunc(list, func(a, b testTime) int { return cmp.Compare(b.seconds, a.seconds) })
	return list, nil
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
