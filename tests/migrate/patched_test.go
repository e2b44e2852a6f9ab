package migrate

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unloaded are configurations without the module, which check takes and migrate does
// not; kept those whose event route check refuses, and migrate leaves in the proxy.
var (
	unloaded = []string{"gateway-without", "no-trace"}
	kept     = []string{"lua", "event-route-lists"}
)

// TestFieldMigrated has each of testdata/field migrated: the patch applies as it is and
// touches no line that is not siptrace's, Kamailio says of the file after it what it
// said before, siptraced takes its half, what is done is not done twice, and the patch
// taken back leaves each file as it was.
func TestFieldMigrated(t *testing.T) {
	t.Parallel()
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.migrate(t)
		})
	}
}

func (f field) migrate(t *testing.T) {
	source, dir := filepath.Join("testdata/field", f.name), t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) outcome {
		return command(t, dir, stdin, "env", slices.Concat(f.env, args)...)
	}
	migrate := slices.Concat([]string{program, "migrate", "kamailio.cfg"}, f.args)
	if f.version != "" {
		migrate = append(migrate, "--kamailio-version", f.version)
	}
	want := f.err
	switch {
	case slices.Contains(unloaded, f.name):
		want = "siptrace is not loaded"
	case slices.Contains(kept, f.name):
		want = ""
	}
	all := run("", migrate...)
	if want != "" {
		if all.code != 1 || !strings.Contains(all.stderr, want) {
			t.Errorf("migrate: %v\nwant %s", all, want)
		}
		return
	}
	patch, yaml := run("", append(migrate, "--patch")...), run("", append(migrate, "--yaml")...)
	if all.code+patch.code+yaml.code != 0 {
		t.Fatalf("migrate: %v", all)
	}
	for _, l := range foreign(patch.stdout) {
		t.Errorf("the patch changes a line that is not siptrace's: %s", l)
	}
	before := f.verdict(t, dir)
	if o := run(all.stdout, "patch", "-p0", "--batch", "--fuzz=0", "--no-backup-if-mismatch"); o.code != 0 || strings.Contains(o.stdout, "offset") {
		t.Errorf("patch: %v", o)
	}
	if after := f.verdict(t, dir); after != before && f.version == "" { // else this Kamailio is another one
		t.Errorf("kamailio -c says\n%s\nand said before\n%s", after, before)
	}
	if o := run("", program, "check", "-c", write(t, filepath.Join(dir, "siptraced.yaml"), yaml.stdout)); o.code != 0 {
		t.Errorf("siptraced check: %v", o)
	}
	if o := run("", migrate...); o.code != 1 || !strings.Contains(o.stderr, "migrated already") {
		t.Errorf("migrated again: %v", o)
	}
	if o := run(all.stdout, "patch", "-R", "-p0", "--batch", "--fuzz=0", "--no-backup-if-mismatch"); o.code != 0 {
		t.Errorf("patch -R: %v", o)
	}
	same(t, dir, source)
}

// same compares the files of a directory with those of another one, byte by byte.
func same(t *testing.T, dir, source string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(source, "*.cfg"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if got, want := readFile(t, filepath.Join(dir, filepath.Base(file))), readFile(t, file); got != want {
			t.Errorf("%s after patch -R: got\n%s\nwant\n%s", file, got, want)
		}
	}
}

var (
	process = regexp.MustCompile(`(?m)^ *\d+\(\d+\) `)
	place   = regexp.MustCompile(`lines? \d+(-\d+)?, column \d+(-\d+)?`)
)

// verdict is what kamailio -c says of the configuration: its end and its errors,
// without the numbers of processes and lines.
func (f field) verdict(t *testing.T, dir string) string {
	t.Helper()
	o := command(t, dir, "", "env", slices.Concat(f.env, []string{"kamailio", "-c", "-E", "-f", filepath.Join(dir, "kamailio.cfg")}, f.args)...)
	lines := []string{"refused\n"}
	if o.code == 0 {
		lines[0] = "accepted\n"
	}
	for l := range strings.Lines(place.ReplaceAllString(process.ReplaceAllString(o.stderr, ""), "HERE")) {
		if strings.Contains(l, "ERROR") || strings.Contains(l, "CRITICAL") {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "")
}

// foreign are the lines of a patch that change something other than siptrace's: its
// modparam lines, the address of a sip_trace(), and its event route.
func foreign(patch string) (out []string) {
	within := false
	for l := range strings.Lines(patch) {
		if strings.HasPrefix(l, "---") || strings.HasPrefix(l, "+++") || l[0] != '-' && l[0] != '+' {
			within = false
			continue
		}
		within = within && l[0] == '-' || strings.Contains(l, "event_route[siptrace:msg]")
		if !within && !strings.Contains(l, "siptrace") && !strings.Contains(l, "sip_trace") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}

func TestForeign(t *testing.T) {
	const own = "--- a\n+++ a\n@@ -1,3 +1,3 @@\n loadmodule \"tm.so\"\n-modparam(\"siptrace\", \"table\", \"x\")\n+# siptraced\n-event_route[siptrace:msg] {\n-\tdrop;\n-}\n"
	if got := foreign(own); len(got) > 0 {
		t.Errorf("got %q, want none", got)
	}
	if got := foreign(own + "@@ -9,1 +9,1 @@\n-children=4\n+children=8\n"); !slices.Equal(got, []string{"-children=4", "+children=8"}) {
		t.Errorf("got %q", got)
	}
}
