package main

import (
	"path/filepath"
	"strings"
	"testing"
)

const sample = `{"Action":"start","Package":"m/good"}
{"Action":"run","Package":"m/good","Test":"TestA"}
{"Action":"output","Package":"m/good","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"m/good","Test":"TestA/one","Elapsed":2.5}
{"Action":"pass","Package":"m/good","Test":"TestA","Elapsed":2.5}
{"Action":"output","Package":"m/good","Output":"BenchmarkX-2   \t       1\t     91.2 ns/op\t 0 B/op\n"}
{"Action":"output","Package":"m/good","Test":"BenchmarkY","Output":"BenchmarkY\n"}
{"Action":"output","Package":"m/good","Test":"BenchmarkY","Output":"BenchmarkY-2   \t"}
{"Action":"output","Package":"m/good","Test":"BenchmarkY","Output":"       1\t     530.0 ns/op\n"}
{"Action":"output","Package":"m/good","Output":"PASS\n"}
{"Action":"pass","Package":"m/good","Elapsed":1.5}
{"Action":"output","Package":"m/bad","Test":"TestB/two","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"m/bad","Test":"TestB/two","Elapsed":0}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"m/bad","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}
{"Action":"fail","Package":"m/bad","Test":"TestB","Elapsed":0}
{"Action":"skip","Package":"m/bad","Test":"TestC","Elapsed":0}
{"Action":"fail","Package":"m/bad","Elapsed":0.1}
{"ImportPath":"m/broken","Action":"build-output","Output":"x.go:1:2: undefined: y\n"}
{"ImportPath":"m/broken","Action":"build-fail"}
{"Action":"fail","Package":"m/broken","Elapsed":0,"FailedBuild":"m/broken"}
{"Action":"output","Package":"m/crash","Test":"TestD","Output":"panic: oh\n"}
{"Action":"fail","Package":"m/crash","Elapsed":0.2}
{"Action":"skip","Package":"m/empty","Elapsed":0}
go: a word of the go command
`

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(sample)); err != nil {
		t.Fatal(err)
	}
	if want := (numbers{passed: 4, failed: 4, skipped: 1}); r.numbers != want {
		t.Errorf("got %v, want %v", r.numbers, want)
	}
	text := out.String()
	for _, want := range []string{
		"ok    m/good", "FAIL  m/bad", "got 1, want 2", "skip  m/bad TestC", "undefined: y", "FAIL  m/broken",
		"panic: oh", "BenchmarkX-2", "BenchmarkY-2", "go: a word",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, no := range []string{"noise", "m/empty", "=== RUN", "----- m/bad TestB\n"} {
		if strings.Contains(text, no) {
			t.Errorf("%q is in\n%s", no, text)
		}
	}
}

func TestTally(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tally")
	for _, lines := range []string{"3 0 0\n", "2 1 0\n"} {
		if err := appendLines(file, lines); err != nil {
			t.Fatal(err)
		}
	}
	total, err := readTally(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := total.String(), "5 passed, 1 failed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	total.skipped = 2
	if got, want := total.String(), "5 passed, 1 failed, 2 skipped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRequire(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(sample)); err != nil {
		t.Fatal(err)
	}
	before := r.numbers.failed
	r.require([]string{"TestA", "TestB/two"})
	if r.numbers.failed != before {
		t.Errorf("tests that ran are missed:\n%s", out.String())
	}
	r.require([]string{"TestNone"})
	if r.numbers.failed != before+1 || !strings.Contains(out.String(), "TestNone did not run") {
		t.Errorf("a test that did not run is not missed:\n%s", out.String())
	}
}

func TestTimes(t *testing.T) {
	r := newReport(&strings.Builder{})
	if err := r.read(strings.NewReader(sample)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "times")
	for _, lines := range []string{"0.50 m/other TestE\n", r.times.String()} {
		if err := appendLines(file, lines); err != nil {
			t.Fatal(err)
		}
	}
	list, err := readTimes(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := (testTime{2.5, "m/good", "TestA/one"}); list[0] != want {
		t.Errorf("slowest: got %v, want %v", list[0], want)
	}
	if want := (testTime{0.5, "m/other", "TestE"}); list[1] != want {
		t.Errorf("second: got %v, want %v", list[1], want)
	}
	for _, x := range list {
		if x.test == "TestA" || x.test == "TestB" {
			t.Errorf("%v has subtests", x)
		}
	}
}
