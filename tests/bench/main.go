// Command bench measures siptraced from outside, with real servers on the
// loopback interface: MariaDB, PostgreSQL and Kamailio as Debian has them, each
// with a data directory of its own.
//
//	go run ./tests/bench                    # everything, about half an hour
//	go run ./tests/bench -short             # the same scenarios in small, a minute or two
//	go run ./tests/bench e2e module         # only these
//	go run ./tests/bench -n 1000000 -db mariadb -rounds 3 drain
//
// Scenarios:
//
//	drain    a spool filled while the database is down, then emptied; beside it,
//	         alternating, the best plain client with the same rows
//	e2e      UDP at rising rates, from the socket to the visible row
//	module   Kamailio's own siptrace at its best, and siptraced against it
//	mirror   messages mirrored onwards as HEP3, over UDP and TCP, to one and four
//	relay    HEP3 over UDP at a rate, passed on as HEP3 over UDP and TCP
//	clients  ways of a plain client to write the table
//	stages   cost of each stage, from the benchmarks of its package
//	idle     a daemon without work
//	profile  a CPU profile of the daemon under load (-cpu-profile)
//
// Each prints a table and then one JSON object per figure on a line of its own.
// Generator, daemon and database share the machine: compare figures of one run
// with each other, as ratios, and repeat.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// scenarios by name, in the order in which they run when none is named;
// profile needs a file and is never meant by that.
var scenarios = []struct {
	name string
	run  func(*bench)
}{
	{"stages", stages},
	{"idle", idle},
	{"drain", drain},
	{"e2e", endToEnd},
	{"module", module},
	{"clients", clients},
	{"mirror", mirrors},
	{"relay", relays},
	{"profile", profile},
}

// options are the flags.
type options struct {
	messages int
	rounds   int
	short    bool
	fsync    bool
	length   time.Duration
	rates    []int
	latency  int
	children []int
	kinds    []string
	quiet    time.Duration
	bin      string
	set      []string
	profile  string
	names    []string
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == generatorFlag {
		if err := generatorMain(args[1], stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		return 0
	}
	opt, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	// The driver would report each connection that a restart of the server cuts.
	if err := mysql.SetLogger(&mysql.NopLogger{}); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{opt: opt, out: stdout, log: stderr}
	ended := make(chan int, 1)
	go func() { ended <- b.runAll() }()
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
		b.cleanUp(0) // servers end, directories go
		b.removeProgram()
		return 130
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.messages, "n", 1_000_000, "messages of drain, clients and mirror")
	fs.IntVar(&o.rounds, "rounds", 2, "repetitions of drain, module, clients, mirror and relay, and attempts at each rate of e2e")
	fs.BoolVar(&o.short, "short", false, "everything in small: shows that it works, the figures mean little")
	fs.BoolVar(&o.fsync, "fsync", true, "MariaDB forces each commit to disk, as it does in Debian; with =false the page cache is enough")
	fs.DurationVar(&o.length, "length", 10*time.Second, "how long each load lasts")
	fs.DurationVar(&o.quiet, "quiet", 0, "before each measurement, wait up to so long for other programs to leave the machine alone;\nwhat they disturb nevertheless is measured again, up to three times as often")
	fs.IntVar(&o.latency, "latency-rate", 20_000, "messages per second at which e2e measures the time to the visible row; the rate of profile, and one of relay")
	fs.StringVar(&o.bin, "bin", "", "siptraced to measure; it is built from this module if not given")
	fs.StringVar(&o.profile, "cpu-profile", "", "`FILE` that profile writes; drain and relay do too if it is given")
	rates := fs.String("rates", "20000,30000,40000,45000,50000,55000,60000,65000,70000", "rising message rates of e2e; the highest is one of relay")
	children := fs.String("children", "2,4,8,16", "numbers of Kamailio's worker processes to try")
	kinds := fs.String("db", "mariadb,postgres,sqlite", "databases of drain, e2e and clients")
	fs.Func("set", "`key=value` for siptraced; may be repeated", func(s string) error {
		o.set = append(o.set, s)
		return nil
	})
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./tests/bench [flags] [drain|e2e|module|clients|mirror|relay|stages|idle|profile]...")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.short {
		// What was given stays as it was given.
		given := map[string]bool{}
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{
			"n": "20000", "rounds": "1", "length": "1s", "latency-rate": "2000", "rates": "2000,4000", "children": "2",
		} {
			if given[name] {
				continue
			}
			if err := fs.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	var err1, err2 error
	o.rates, err1 = numbers("rates", *rates)
	o.children, err2 = numbers("children", *children)
	if err := errors.Join(err1, err2); err != nil {
		return o, err
	}
	o.kinds = strings.Split(*kinds, ",")
	for _, k := range o.kinds {
		if k != mariaDB && k != postgres && k != sqliteDB {
			return o, fmt.Errorf("-db %q: use %s, %s or %s", k, mariaDB, postgres, sqliteDB)
		}
	}
	if o.messages < 1000 || o.rounds < 1 || o.length < 100*time.Millisecond || o.latency < 1 {
		return o, errors.New("-n starts at 1000, -rounds at 1, -length at 100ms, -latency-rate at 1")
	}
	o.names = fs.Args()
	for _, n := range o.names {
		if scenarioIndex(n) < 0 {
			return o, fmt.Errorf("no scenario %q", n)
		}
	}
	if len(o.names) == 0 {
		for _, s := range scenarios {
			if s.name != "profile" || o.profile != "" {
				o.names = append(o.names, s.name)
			}
		}
	}
	if slices.Contains(o.names, "profile") && o.profile == "" {
		return o, errors.New("profile needs -cpu-profile FILE")
	}
	return o, nil
}

func scenarioIndex(name string) int {
	for i, s := range scenarios {
		if s.name == name {
			return i
		}
	}
	return -1
}

func numbers(name, list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-%s %q: a list of numbers from 1 on", name, list)
		}
		out = append(out, n)
	}
	return out, nil
}
