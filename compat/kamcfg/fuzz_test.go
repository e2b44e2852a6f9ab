package kamcfg

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// FuzzParse: whatever the bytes, a configuration or an *Error; every line of
// text has its place; what Marshal writes of it is read back.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/vectors/*.cfg", "testdata/operator/*.cfg", "testdata/operator/routes/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files for %s: %v", pattern, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(b))
		}
	}
	f.Add("#!define X \"a\" \\\n\"b\"\n#!substdefs \"!Y!c$def(X)!gi\"\nalias=X Y\n#!ifexp (X == \"a\") || -1 < 2\nfork=0x1f\n#!else\n#!endif\n")
	f.Add("include_file \"self\"\nsocket={bind=udp:[::1]:1-9;advertise=a:2;name=\"n\"}\nlisten=tls:(\"::\",lo):5 name \"x\" virtual")
	f.Add("event_route[a:b] { $(x(y){z}) \"#\" 'q' /* /* */ */ { } X }\nmodparamx('siptrace|a.', \"$def(X)\", -101b)")
	f.Add("#!substdefs \"!A!x$env(no)$HN(n)$(def(B){re.subst,/q/$$/g}{s.len})y!g\"\n#!define B A\nalias=A \"A\" x_=A:5 listen=::1 #!undef B\nmodparamx(\"siptrace\", \"A\", $defn(B))")
	f.Add("#!ifexp A = \"x\" , !B || 1 ** -2 << 3.5\n#!endif\n#!endif\n#!defexps C 'a' + 1 / 3\n#!ifdef A\nloadmodule \"siptrace.so\"\n#!endif\nsocket={bind=udp:A:1;vrf=\"A\"} coreparam[A]=A")
	f.Fuzz(func(t *testing.T, src string) {
		opt := Options{
			Interfaces: host,
			Env:        func(name string) (string, bool) { return name, name != "" && name != "no" },
			HostName:   func(part string) (string, error) { return part, nil },
			ReadFile: func(name string) ([]byte, error) {
				if name == "self" {
					return []byte(src), nil
				}
				return nil, fs.ErrNotExist
			},
		}
		p := &Parser{Path: "kamailio.cfg", Options: opt}
		m, err := p.Unmarshal([]byte(src))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos.File == "" || e.Msg == "" {
				t.Fatalf("error without place or text: %#v", err)
			}
			return
		}
		for _, r := range p.Config().EventRoutes {
			for _, k := range r.Tokens {
				if k.Pos.File == "" || k.Pos.Line < 1 || k.Text == "" && k.Kind != String {
					t.Fatalf("token without a place or text: %+v", k)
				}
			}
		}
		for _, l := range p.Config().Listens {
			if l.Port < 0 || l.Port > 65535 || l.AdvertisePort < 0 || l.AdvertisePort > 65535 {
				t.Fatalf("port out of bounds: %+v", l)
			}
		}
		delete(m, "local")
		b, err := p.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		p = &Parser{Path: "kamailio.cfg"}
		if again, err := p.Unmarshal(b); err != nil || len(again[module].(map[string]any)) != len(m[module].(map[string]any)) {
			t.Fatalf("%s\nread back: %v, %v", b, again, err)
		}
	})
}
