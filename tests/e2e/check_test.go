package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

var modparam = regexp.MustCompile(`^\s*modparam\("siptrace",\s*"([a-z_]+)",\s*(?:"([^"]*)"|(-?\d+))\)`)

// TestCheck runs `siptraced check` on every recorded configuration: each
// siptrace parameter has to be listed with its value and its place.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir, err := vectors.Dir()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "kamailio*.cfg"))
	if err != nil || len(files) < 89 {
		t.Fatalf("%d configurations, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file)) + "/" + filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := siptraced(t, 0, "check", "--all", "--kamailio-cfg", file)
			params := 0
			for i, line := range strings.Split(readFile(t, file), "\n") {
				m := modparam.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				params++
				place := fmt.Sprintf("kamailio.cfg:%d", i+1)
				if strings.HasSuffix(file, "-b.cfg") {
					place = fmt.Sprintf("kamailio-b.cfg:%d", i+1)
				}
				value := m[2] + m[3]
				secret := m[1] == "db_url" || m[1] == "auth_key"
				if !lineWith(r.Stdout, m[1], place) || !secret && !lineWith(r.Stdout, m[1], place, value) {
					t.Errorf("no line with %s, %s and %s in\n%s", m[1], value, place, r.Stdout)
				}
			}
			if params == 0 {
				t.Error("no modparam found")
			}
			// What is not set is listed too, with the module's default.
			if !lineWith(r.Stdout, "trace_sl_acks", "default") && !strings.Contains(readFile(t, file), "trace_sl_acks") {
				t.Errorf("no line with trace_sl_acks and default in\n%s", r.Stdout)
			}
			for _, secret := range []string{"vecpw", "s3cr3t-auth-key"} {
				if strings.Contains(r.Stdout+r.Stderr, secret) {
					t.Errorf("secret %q is printed", secret)
				}
			}
		})
	}
}

// lineWith reports whether one line has all the parts, each as a word of its own.
func lineWith(text string, parts ...string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, p := range parts {
			if !word(line, p) {
				all = false
			}
		}
		if all {
			return true
		}
	}
	return false
}

// word reports whether the text has p with no letter, digit or underscore
// before or after it.
func word(text, p string) bool {
	if p == "" {
		return true
	}
	return regexp.MustCompile(`(^|[^\w])` + regexp.QuoteMeta(p) + `($|[^\w])`).MatchString(text)
}

// TestCheckErrors gives `siptraced check` and `siptraced run` configurations
// that are wrong: exit code 1, the place, and what would be right.
func TestCheckErrors(t *testing.T) {
	t.Parallel()
	const head = "#!KAMAILIO\nlisten=udp:127.0.0.1:5060\nloadmodule \"siptrace.so\"\n" // three lines
	tests := []struct {
		name string
		text string   // from line 4 on
		want []string // all of them in what is printed
	}{
		{"unknown parameter", `modparam("siptrace", "duplicat_uri", "sip:127.0.0.1:9060")`, []string{"kamailio.cfg:4", "duplicat_uri", "duplicate_uri"}},
		{"unknown parameter, another", "\n\n" + `modparam("siptrace", "hep_captureid", 7)`, []string{"kamailio.cfg:6", "hep_captureid", "hep_capture_id"}},
		{"string for a number", `modparam("siptrace", "trace_on", "yes")`, []string{"kamailio.cfg:4", "trace_on", "yes"}},
		{"number for a string", `modparam("siptrace", "duplicate_uri", 5)`, []string{"kamailio.cfg:4", "duplicate_uri"}},
		{"value out of range", `modparam("siptrace", "hep_version", 4)`, []string{"kamailio.cfg:4", "hep_version", "3"}},
		{"flag out of range", `modparam("siptrace", "trace_flag", 32)`, []string{"kamailio.cfg:4", "trace_flag", "31"}},
		{"trace_init_mode without trace_mode", `modparam("siptrace", "trace_init_mode", 1)`, []string{"trace_init_mode", "trace_mode"}},
		{"unknown database driver", `modparam("siptrace", "db_url", "msql://u:p@localhost/db")`, []string{"kamailio.cfg:4", "db_url", "mysql"}},
		{"unclosed string", `modparam("siptrace", "table", "sip_trace)`, []string{"kamailio.cfg:4"}},
		{"unclosed comment", "/* no end\nrequest_route { exit; }\n", []string{"kamailio.cfg:4"}},
		{"missing include", `include_file "not-there.cfg"`, []string{"kamailio.cfg:4", "not-there.cfg"}},
		{"in an include", `include_file "wrong.cfg"`, []string{"wrong.cfg:2", "trace_onn", "trace_on"}},
		{"unbalanced ifdef", "#!ifdef WITH_TRACE\n", []string{"kamailio.cfg:4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "wrong.cfg"), "# included\nmodparam(\"siptrace\", \"trace_onn\", 1)\n")
			file := write(t, filepath.Join(dir, "kamailio.cfg"), head+tt.text+"\nrequest_route {\n\texit;\n}\n")
			for _, command := range []string{"check", "run"} {
				args := []string{command, "--kamailio-cfg", file, "--set", "listen=udp:127.0.0.1:" + fmt.Sprint(servers.FreePort(t))}
				r := siptraced(t, 1, args...)
				text := r.Stdout + r.Stderr
				for _, want := range tt.want {
					if !strings.Contains(text, want) {
						t.Errorf("%s: %q is not in\n%s", command, want, text)
					}
				}
				if strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") {
					t.Errorf("%s: crash\n%s", command, text)
				}
			}
		})
	}

	t.Run("other sources", func(t *testing.T) {
		dir := t.TempDir()
		yaml := write(t, filepath.Join(dir, "siptraced.yaml"), "siptrace:\n  trace_on: 1\n  hep_verison: 3\n")
		for _, tt := range []struct {
			args []string
			want []string
		}{
			{[]string{"-c", yaml}, []string{"siptraced.yaml", "hep_verison", "hep_version"}},
			{[]string{"--set", "siptrace.tabel=x"}, []string{"siptrace.tabel", "table"}},
			{[]string{"--set", "lisen=udp:127.0.0.1:1"}, []string{"lisen", "listen"}},
			{[]string{"--set", "timezone=Europe/Nowhere"}, []string{"timezone", "Europe/Nowhere"}},
			{[]string{"--set", "siptrace.trace_on=maybe"}, []string{"trace_on", "maybe"}},
			{[]string{"-c", filepath.Join(dir, "missing.yaml")}, []string{"missing.yaml"}},
			{[]string{"--kamailio-cfg", filepath.Join(dir, "missing.cfg")}, []string{"missing.cfg"}},
		} {
			r := siptraced(t, 1, append([]string{"check"}, tt.args...)...)
			for _, want := range tt.want {
				if !strings.Contains(r.Stdout+r.Stderr, want) {
					t.Errorf("check %q: %q is not in\n%s%s", tt.args, want, r.Stdout, r.Stderr)
				}
			}
		}
	})

	t.Run("precedence", func(t *testing.T) {
		dir := t.TempDir()
		cfg := write(t, filepath.Join(dir, "kamailio.cfg"), head+"modparam(\"siptrace\", \"table\", \"from_cfg\")\nmodparam(\"siptrace\", \"hep_capture_id\", 1)\n"+
			"modparam(\"siptrace\", \"auth_key\", \"from_cfg\")\nmodparam(\"siptrace\", \"trace_on\", 1)\n")
		yaml := write(t, filepath.Join(dir, "siptraced.yaml"), "siptrace:\n  hep_capture_id: 22\n  trace_mode: 3\n  hep_version: 2\n")
		r := servers.RunSiptraced(t, servers.Command{
			Bin: program, Env: []string{"SIPTRACED_SIPTRACE__TRACE_MODE=7", "SIPTRACED_SIPTRACE__HEP_VERSION=2"},
			Args: []string{"check", "--kamailio-cfg", cfg, "-c", yaml, "--set", "siptrace.hep_version=3"},
		})
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		for _, want := range [][]string{
			{"table", "from_cfg", "kamailio.cfg:4"},
			{"hep_capture_id", "22", "siptraced.yaml"},
			{"trace_mode", "7", "SIPTRACED_SIPTRACE__TRACE_MODE"},
			{"hep_version", "3", "--set"},
			{"trace_on", "1", "kamailio.cfg:7"},
		} {
			if !lineWith(r.Stdout, want...) {
				t.Errorf("no line with %q in\n%s", want, r.Stdout)
			}
		}
	})
}

// TestBindFails: a listener that cannot bind fails the start.
func TestBindFails(t *testing.T) {
	t.Parallel()
	port := servers.FreePort(t)
	first := start(t, options{port: port})
	r := siptraced(t, 1, "run", "--set", fmt.Sprintf("listen=udp:127.0.0.1:%d", port))
	if text := r.Stdout + r.Stderr; !strings.Contains(text, fmt.Sprint(port)) {
		t.Errorf("port %d is not named in\n%s", port, text)
	}
	first.stop(t)
	if _, err := os.Stat(filepath.Join(first.Dir, "siptraced.db")); err != nil {
		t.Errorf("%v", err)
	}
}
