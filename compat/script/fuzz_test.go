package script_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// FuzzRoute: any text is compiled or refused with a place, what was compiled runs
// within its bounds on any message, and what it prints means the same again.
func FuzzRoute(f *testing.F) {
	f.Add(twenty, invite)
	files, err := filepath.Glob("testdata/*.cfg")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		cfg, err := kamcfg.ParseBytes(name, b, kamcfg.Options{})
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range cfg.Blocks {
			text := string(b[block.Span.From:block.Span.To])
			text = text[strings.IndexByte(text, '{')+1 : len(text)-1]
			f.Add(text, options)
			f.Add(text, ok200)
		}
	}
	for _, file := range []string{"testdata/conditions.txt", "testdata/refused.txt"} {
		for _, c := range lines(f, file) {
			f.Add("if ("+c+") drop;", options)
		}
	}
	f.Add(`while(1) { $avp(x) = $(mb{s.replace,a,bb}{param.value,x}) + $hdr(X) =~ $rU; switch($rm) { case /"^A|b": break; default: exit; } }`, options)
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		p, err := try(text, script.Options{Debug: 3})
		if err != nil {
			var e *kamcfg.Error
			if !errors.As(err, &e) || e.Pos.File == "" || e.Msg == "" {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		_ = p.String()
		sip, rec := &sipmsg.Message{}, &siptrace.Record{}
		if sip.Parse(raw) != nil {
			*sip = sipmsg.Message{Raw: raw}
		}
		var m script.Message
		first := p.Run(&m, sip, rec)
		actions, values := len(first.Actions), 0
		for _, name := range []string{"a", "x", "s:tu", "i:12"} {
			values += len(m.Values(p.AVP("$avp("+name+")"), nil))
		}
		if values > script.MaxValues || actions > script.MaxActions {
			t.Fatalf("%d values, %d actions", values, actions)
		}
		again, list := p.Explain(&m, sip, rec)
		if again.Dropped != first.Dropped || again.Flags != first.Flags || len(again.Actions) != actions || again.Faults != first.Faults {
			t.Fatalf("two runs differ: %+v, %+v", first, again)
		}
		for _, e := range list {
			_ = e.String()
		}
	})
}
