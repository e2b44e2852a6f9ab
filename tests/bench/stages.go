package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// stageBenchmarks are the benchmarks of what happens to each message, in the
// order in which it does.
var stageBenchmarks = []struct{ stage, pkg, pattern string }{
	{"HEP decode", "./hep", "^BenchmarkDecode$"},
	{"SIP scan", "./compat/sipmsg", "^BenchmarkParse$"},
	{"record", "./compat/siptrace", "^BenchmarkBuild$"},
	{"socket to spool", "./cmd/siptraced/internal/pipeline", "^BenchmarkHandle$"},
	{"spool codec", "./cmd/siptraced/internal/spool", "^BenchmarkCodec$"},
	{"row", "./dbschema", "^BenchmarkAppendArgs$"},
}

// stages runs the benchmarks of the packages and prints what they say.
func stages(b *bench) {
	t := table{
		title: "Cost per message of each stage, one goroutine",
		head:  []string{"stage", "case", "ns", "bytes", "allocations"},
	}
	length := "1s"
	if b.opt.short {
		length = "20ms"
	}
	for _, s := range stageBenchmarks {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", s.pattern, "-benchtime", length, "-benchmem", s.pkg)
		cmd.Dir = b.moduleRoot()
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			b.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		list := parseBenchmarks(string(out))
		if len(list) == 0 {
			b.Errorf("%v: no benchmark\n%s", cmd.Args, out)
		}
		for _, r := range list {
			t.add(s.stage, r.name, r.ns, r.bytes, r.allocs)
			b.add("", s.stage+", "+r.name, r.ns, "ns")
			b.add("", s.stage+", "+r.name+": allocations", float64(r.allocs), "allocations")
		}
	}
	t.print(b.out)
}

// moduleRoot is the directory of go.mod, as the go command sees it from here.
func (b *bench) moduleRoot() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		b.Fatalf("go list -m: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// benchmark is one line of go test -bench -benchmem.
type benchmark struct {
	name          string
	ns            float64
	bytes, allocs int
}

var (
	benchmarkLine  = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op(.*)$`)
	benchmarkBytes = regexp.MustCompile(`(\d+) B/op`)
	benchmarkAlloc = regexp.MustCompile(`(\d+) allocs/op`)
)

func parseBenchmarks(text string) (list []benchmark) {
	whole := func(re *regexp.Regexp, s string) int {
		m := re.FindStringSubmatch(s)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(m[1]) // digits only
		return n
	}
	for _, m := range benchmarkLine.FindAllStringSubmatch(text, -1) {
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			continue
		}
		_, name, sub := strings.Cut(m[1], "/")
		if !sub {
			name = m[1]
		}
		list = append(list, benchmark{name: name, ns: ns, bytes: whole(benchmarkBytes, m[3]), allocs: whole(benchmarkAlloc, m[3])})
	}
	return list
}

// idle is what a daemon takes that has nothing to do.
func idle(b *bench) {
	length := 30 * time.Second
	if b.opt.short {
		length = 5 * time.Second
	}
	t := table{
		title: fmt.Sprintf("A daemon without work, %v", length),
		head:  []string{"database", "CPU %", "resident MiB", "peak MiB"},
	}
	for _, kind := range []string{sqliteDB} {
		b.section(func() {
			d := b.startDatabase(kind)
			s := b.siptraced(d.url())
			time.Sleep(2 * time.Second) // its start is over
			before, err1 := s.cpu()
			time.Sleep(length)
			after, err2 := s.cpu()
			now, err3 := s.memory("VmRSS")
			peak, err4 := s.memory("VmHWM")
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					b.Fatal(err)
				}
			}
			share := 100 * (after - before) / length.Seconds()
			t.add(kind, share, now, peak)
			b.add(kind, "CPU without work", share, "%")
			b.add(kind, "memory without work", now, "MiB")
			s.stop()
		})
	}
	t.print(b.out)
}

// profile loads a daemon that writes a CPU profile of itself.
func profile(b *bench) {
	b.section(func() {
		d := b.startDatabase(b.opt.kinds[0])
		m := d.load(b.opt.latency, 0, "--cpu-profile", b.absolute(b.opt.profile))
		b.Logf("profile of %.0f messages/s for %v is in %s", m.sent, b.opt.length, b.opt.profile)
		b.add(d.kind, "profiled", m.rows, "rows/s")
	})
}
