package kamcfg

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"siptraced/tests/servers"
)

// asKamailio has the real one check a configuration, and gives the hosts of its
// aliases in the order of the file.
func asKamailio(t *testing.T, src string, env, files map[string]string, args ...string) (v servers.Verdict, hosts []string) {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"kamailio.cfg": "auto_aliases=no\nrequest_route { exit; }\n" + src}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	v = servers.CheckKamailio(t, filepath.Join(dir, "kamailio.cfg"), list, args...)
	for _, a := range v.Aliases {
		if host, ok := strings.CutPrefix(a, "*:"); ok {
			hosts = append(hosts, strings.TrimSuffix(host, ":*"))
		}
	}
	return v, hosts
}

// TestFacts puts the facts of TestPreprocess to the real Kamailio.
func TestFacts(t *testing.T) {
	for _, tt := range preprocessFacts {
		if tt.differs != "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, hosts := asKamailio(t, tt.src, factEnv(), factFiles())
			if v.Accepted != (tt.err == "") {
				t.Fatalf("accepted: %v, want %v\n%s", v.Accepted, tt.err == "", v.Output)
			}
			if want := once(strings.Fields(tt.want)); tt.err == "" && strings.Join(hosts, " ") != tt.want && !slices.Equal(hosts, want) {
				t.Errorf("got %q, want %q", hosts, tt.want)
			}
		})
	}
}

// once leaves repetitions out, as Kamailio does with aliases.
func once(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// TestCommandLineFacts: likewise those of TestDefines and TestListenOption.
func TestCommandLineFacts(t *testing.T) {
	for _, tt := range defineFacts {
		if tt.differs != "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, hosts := asKamailio(t, tt.src, nil, nil, flags("-A", tt.list())...)
			if v.Accepted != (tt.err == "") || tt.err == "" && strings.Join(hosts, " ") != tt.want {
				t.Errorf("accepted: %v, got %q, want %q\n%s", v.Accepted, hosts, tt.want, v.Output)
			}
		})
	}
	for _, tt := range listenFacts {
		if tt.differs != "" {
			continue
		}
		t.Run("-l "+tt.name, func(t *testing.T) {
			t.Parallel()
			v, _ := asKamailio(t, tt.src, nil, nil, flags("-l", strings.Fields(tt.listens))...)
			got, want := slices.Sorted(slices.Values(v.Sockets)), slices.Sorted(slices.Values(strings.Fields(tt.local)))
			for i := range got {
				got[i], _, _ = strings.Cut(got[i], " ")
			}
			if v.Accepted != (tt.err == "") || !slices.Equal(got, want) {
				t.Errorf("accepted: %v, got %q, want %q\n%s", v.Accepted, got, want, v.Output)
			}
		})
	}
}

// TestListenFacts: likewise those of TestListen that don't hang on the host's
// interfaces or on a newer release.
func TestListenFacts(t *testing.T) {
	other := regexp.MustCompile(`eth0|0\.0\.0\.0|\[::\]|=::$|socket *=|example|advertise udp`)
	for _, tt := range listenLines {
		if other.MatchString(tt.src) || !strings.Contains(tt.src, "listen") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, _ := asKamailio(t, tt.src, nil, nil)
			var got []string
			for _, s := range v.Sockets {
				s, _, _ = strings.Cut(s, " ")
				got = append(got, s)
			}
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(strings.Fields(tt.local))); !slices.Equal(slices.Compact(got), want) {
				t.Errorf("got %q, want %q\n%s", got, want, v.Output)
			}
		})
	}
}

func flags(flag string, values []string) (out []string) {
	for _, v := range values {
		out = append(out, flag, v)
	}
	return out
}

// TestVariableFacts: likewise those of TestStartVariables that don't hang on the
// host or on a newer release.
func TestVariableFacts(t *testing.T) {
	const modules = "loadmodule \"pv.so\"\nloadmodule \"textops.so\"\nloadmodule \"ipops.so\"\n"
	env := map[string]string{"SET": "val", "NUMBER": "7", "EMPTY": ""}
	for _, tt := range variableFacts {
		if tt.unknown != "" || strings.Contains(tt.repl, "$HN") || strings.Contains(tt.repl, "$defv") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			repl := strings.ReplaceAll(tt.repl, `\`, `\\`)
			src := modules + variableDefs + "#!substdefs \"!FOO!" + repl + "!g\"\nalias=\"FOO\"\n"
			want := []string{tt.inString}
			if !strings.Contains(tt.alone, `"`) { // within quotes
				src += "alias=FOO alias=\"z\"\n"
				want = once([]string{tt.inString, tt.alone, "z"})
			}
			if v, hosts := asKamailio(t, src, env, nil); !slices.Equal(hosts, want) {
				t.Errorf("got %q, want %q\n%s", hosts, want, v.Output)
			}
		})
	}
}
