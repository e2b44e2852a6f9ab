package kamcfg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func standing(t *testing.T, s Span) string {
	t.Helper()
	b, err := os.ReadFile(s.File)
	if err != nil || s.From < 0 || s.To > len(b) || s.From > s.To {
		t.Fatalf("span %+v of %d bytes: %v", s, len(b), err)
	}
	return string(b[s.From:s.To])
}

// TestSpans reads statements back from where their spans say that they stand.
func TestSpans(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "kamailio.cfg")
	for name, text := range map[string]string{
		"kamailio.cfg": `#!define URI "sip:192.0.2.1"
#!define WHOLE modparam("siptrace", "table", "x")
#!define ON 1
loadmodule "siptrace.so"
include_file "inc.cfg"
modparam("siptrace" , "duplicate_uri",  URI ) # where to
modparam("siptrace", "db_url", "mysql://a" /* no comment within: */
	"b/c")
WHOLE
modparam("siptrace", "trace_on", ON); modparam("siptrace", "hep_version", -0x03)
route[ONE] { sip_trace(URI, "$ci"); $avp(x) = ON; }
event_route[siptrace:msg]
{
	drop();
}
`,
		"inc.cfg": "\n  modparam(\"acc|siptrace\", 'trace_mode', 1)\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A comment between two strings keeps them apart.
	if _, err := Parse(main, Options{}); err == nil {
		t.Fatal("strings with a comment between them became one")
	}
	b, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(main, []byte(strings.Replace(string(b), "/* no comment within: */", "", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse(main, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := standing(t, cfg.Modules[0].Span), `loadmodule "siptrace.so"`; got != want {
		t.Errorf("module: got %q, want %q", got, want)
	}
	want := map[string][2]string{
		"trace_mode":    {`modparam("acc|siptrace", 'trace_mode', 1)`, "1"},
		"duplicate_uri": {`modparam("siptrace" , "duplicate_uri",  URI )`, "URI"},
		"db_url":        {"modparam(\"siptrace\", \"db_url\", \"mysql://a\" \n\t\"b/c\")", "\"mysql://a\" \n\t\"b/c\""},
		"trace_on":      {`modparam("siptrace", "trace_on", ON)`, "ON"},
		"hep_version":   {`modparam("siptrace", "hep_version", -0x03)`, "-0x03"},
	}
	for _, p := range cfg.Params {
		w, ok := want[p.Name]
		if p.Name == "table" {
			if p.Span != (Span{}) {
				t.Errorf("a statement that is the value of a define has the span %+v", p.Span)
			}
			continue
		}
		if !ok {
			t.Errorf("unexpected %s", p.Name)
			continue
		}
		if got := [2]string{standing(t, p.Span), standing(t, p.ValueSpan)}; got != w {
			t.Errorf("%s: got %q, want %q", p.Name, got, w)
		}
		delete(want, p.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	one, event := cfg.Blocks[0], cfg.Blocks[1]
	if len(cfg.Routes) != 1 || cfg.Routes[0].Name != "ONE" || !cfg.Routes[0].Same(cfg.Blocks[0].Route) {
		t.Errorf("routes: %+v", cfg.Routes)
	}
	if one.Kind != "route" || one.Name != "ONE" || event.Kind != "event_route" || event.Name != "siptrace:msg" {
		t.Fatalf("blocks: %+v", cfg.Blocks)
	}
	if got, want := standing(t, event.Span), "event_route[siptrace:msg]\n{\n\tdrop();\n}"; got != want {
		t.Errorf("block: got %q, want %q", got, want)
	}
	var got []string
	for _, tok := range one.Tokens {
		got = append(got, tok.Text+"="+standing(t, tok.Span))
	}
	if g, w := strings.Join(got, " "), `sip_trace=sip_trace (=( sip:192.0.2.1=URI ,=, $ci="$ci" )=) ;=; $avp(x)=$avp(x) === 1=ON ;=;`; g != w {
		t.Errorf("tokens:\ngot  %s\nwant %s", g, w)
	}
}
