package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"siptraced/tests/servers"
)

// root is the directory of the module, as seen from this package.
const root = "../.."

// readmeSize is what a reader takes in at one sitting.
const readmeSize = 8192

// readme returns README.md.
func readme(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// blocks are the fenced blocks of a document that are in a language.
func blocks(document, language string) []string {
	var list []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(document, -1) {
		list = append(list, m[1])
	}
	return list
}

// printsAll checks that each line of the texts is in an output; the output may
// indent it.
func printsAll(tb testing.TB, output string, texts ...string) {
	tb.Helper()
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if !strings.Contains(output, strings.TrimSpace(line)) {
				tb.Errorf("siptraced does not print %q:\n%s", strings.TrimSpace(line), output)
			}
		}
	}
}

// awaitOutput runs a line in bash until it prints what it should. It may not fail.
func awaitOutput(tb testing.TB, dir, line, want string) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		r := servers.RunSiptraced(tb, servers.Command{Bin: "/bin/bash", Args: []string{"-c", line}, Dir: dir})
		switch {
		case r.Code != 0:
			tb.Fatalf("%s: exit code %d\n%s%s", line, r.Code, r.Stdout, r.Stderr)
		case strings.Contains(r.Stdout, want):
			return
		case time.Now().After(deadline):
			tb.Fatalf("%s: does not print %q, but\n%s", line, want, r.Stdout)
		}
	}
}

// TestService starts what the systemd unit of OPERATION.md starts, as far as checking
// its configuration.
func TestService(t *testing.T) {
	t.Parallel()
	proxy := write(t, filepath.Join(t.TempDir(), "kamailio.cfg"), "#!KAMAILIO\n"+strings.Join(blocks(readme(t), "cfg"), ""))
	units := blocks(readFile(t, filepath.Join(root, "cmd/siptraced/OPERATION.md")), "ini")
	m := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/siptraced run (.*)$`).FindStringSubmatch(strings.Join(units, ""))
	if m == nil {
		t.Fatal("OPERATION.md has no systemd unit that runs siptraced")
	}
	args := strings.Fields(strings.ReplaceAll(m[1], "/etc/kamailio/kamailio.cfg", proxy))
	if r := servers.RunSiptraced(t, servers.Command{Bin: program, Args: append([]string{"check"}, args...)}); r.Code != 0 {
		t.Errorf("check %q: exit code %d\n%s", args, r.Code, r.Stderr)
	}
}

// TestReadmeTables compares the commands and the keys of README.md with what the
// program has.
func TestReadmeTables(t *testing.T) {
	t.Parallel()
	text := readme(t)
	if len(text) > readmeSize {
		t.Errorf("README.md has %d bytes, want at most %d: the rest belongs into the documents that it links to", len(text), readmeSize)
	}
	names := func(text, pattern string) []string {
		var list []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	help := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"--help"}}).Stdout
	has := slices.DeleteFunc(names(help, `(?m)^  ([a-z]+) {2,}\S`), func(s string) bool { return s == "completion" || s == "help" })
	if got := names(strings.Join(blocks(text, "text"), ""), `(?m)^siptraced ([a-z]+)`); !slices.Equal(got, has) {
		t.Errorf("commands of README.md: %q, of the program: %q", got, has)
	}

	check := servers.RunSiptraced(t, servers.Command{Bin: program, Args: []string{"check", "--all"}}).Stdout
	keys := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| (?:`([^`]*)`)? ?\\|").FindAllStringSubmatch(text, -1)
	if len(keys) != 10 {
		t.Errorf("README.md has %d keys, want ten", len(keys))
	}
	for _, k := range keys {
		value := k[2]
		if value == "" {
			value = "unset"
		}
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(k[1]) + ` = "?` + regexp.QuoteMeta(value) + `"?( |$)`)
		if !line.MatchString(check) {
			t.Errorf("%s: check does not print %q as its default", k[1], value)
		}
	}
}

// TestCounters finds each counter that the daemon prints in COUNTERS.md.
func TestCounters(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, "cmd/siptraced/COUNTERS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for _, m := range regexp.MustCompile("`([a-z0-9_.]+\\*?)`").FindAllStringSubmatch(string(b), -1) {
		patterns = append(patterns, m[1])
	}
	run := start(t, options{set: []string{"spool.dir=" + t.TempDir()}})
	counters := run.CountersNow(t)
	if len(counters) < 20 {
		t.Errorf("only %d counters: %v", len(counters), counters)
	}
	for name := range counters {
		if !slices.ContainsFunc(patterns, func(p string) bool {
			prefix, group := strings.CutSuffix(p, "*")
			return name == p || group && prefix != "" && strings.HasPrefix(name, prefix)
		}) {
			t.Errorf("COUNTERS.md does not have the counter %s", name)
		}
	}
	run.stop(t)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```")
	room    = regexp.MustCompile("(?m)^\\| `([a-z0-9]+(?:/[a-z0-9]+)*)`(?: and `[a-z./]+`)? \\| [^|]+ \\| [^|]+ \\| [^|]*\\|$")
	oneTest = regexp.MustCompile(`go test (\./\S+) -run '?(\w+)`)
)

// TestDocuments follows every link of every document of the repository, and finds
// the tests and the rooms that they name.
func TestDocuments(t *testing.T) {
	t.Parallel()
	links := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(b), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if problem := follow(path, m[1]); problem != "" {
				t.Errorf("%s: link %s: %s", path, m[1], problem)
			}
		}
		for _, m := range oneTest.FindAllStringSubmatch(string(b), -1) {
			files, _ := filepath.Glob(filepath.Join(root, m[1], "*_test.go"))
			if !slices.ContainsFunc(files, func(f string) bool {
				source, err := os.ReadFile(f)
				return err == nil && strings.Contains(string(source), "\nfunc "+m[2]+"(")
			}) {
				t.Errorf("%s: %s has no %s", path, m[1], m[2])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := os.ReadFile(filepath.Join(root, "tests/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := room.FindAllStringSubmatch(string(rooms), -1)
	if len(named) < 10 {
		t.Errorf("tests/README.md maps only %d rooms", len(named))
	}
	for _, m := range named {
		if files, _ := filepath.Glob(filepath.Join(root, m[1], "*.go")); len(files) == 0 {
			t.Errorf("tests/README.md: there is no room %s", m[1])
		}
	}
	if links < 10 {
		t.Errorf("only %d links found", links)
	}
}

// follow says what is wrong with a link within the repository.
func follow(from, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	path := from
	if file != "" {
		path = filepath.Join(filepath.Dir(from), file)
	}
	b, err := os.ReadFile(path)
	if anchor == "" {
		if _, err := os.Stat(path); err != nil {
			return err.Error()
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	for _, m := range heading.FindAllStringSubmatch(string(b), -1) {
		// As GitHub does it: lower case, blanks become hyphens, no other punctuation.
		slug := regexp.MustCompile(`[^\pL\pN_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(slug, " ", "-") == anchor {
			return ""
		}
	}
	return "no such heading"
}
