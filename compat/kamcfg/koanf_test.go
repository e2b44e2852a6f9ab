package kamcfg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/v2"
)

// text is a koanf provider of bytes in memory.
type text string

func (s text) ReadBytes() ([]byte, error)    { return []byte(s), nil }
func (s text) Read() (map[string]any, error) { return nil, errors.New("text: bytes only") }

const sample = `
modparam("siptrace", "db_url", "mysql://u:p@h/d")
modparam("acc|siptrace", "trace_on", 1)
modparam("siptrace", "duplicate_uri", "sip:a")
modparam("siptrace", "duplicate_uri", "sip:b")
modparam("siptrace", "trace_on", 0)
modparam("tm", "trace_on", 7)
modparamx("tm", "x", "$var(only_there)")
include_file "listen.cfg"
listen=udp:[::1]:5062
`

func TestKoanf(t *testing.T) {
	files := mapFiles(map[string]string{"/etc/kamailio/listen.cfg": "listen=udp:(192.0.2.1, 192.0.2.2):5060\n"})
	for _, lists := range [][]string{nil, {"duplicate_uri"}} {
		p := &Parser{Path: "/etc/kamailio/kamailio.cfg", Options: Options{ReadFile: files}, Lists: lists}
		k := koanf.New(".")
		if err := k.Load(text(sample), p); err != nil {
			t.Fatal(err)
		}
		if got := k.String("siptrace.db_url"); got != "mysql://u:p@h/d" {
			t.Errorf("db_url: got %q", got)
		}
		if got := k.Get("siptrace.trace_on"); got != int64(0) {
			t.Errorf("trace_on: got %v (%T), want the last one as int64", got, got)
		}
		if got := k.Strings("local"); !slices.Equal(got, []string{"udp:192.0.2.1:5060", "udp:192.0.2.2:5060", "udp:[::1]:5062"}) {
			t.Errorf("local: got %q", got)
		}
		want := any("sip:b")
		if lists != nil {
			want = []string{"sip:a", "sip:b"}
		}
		if got := k.Get("siptrace.duplicate_uri"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("duplicate_uri: got %v, want %v", got, want)
		}
		var notes []string
		for _, n := range p.Config().Notes {
			notes = append(notes, n.Pos.String()+" "+n.Msg)
		}
		wantNotes := []string{
			"/etc/kamailio/kamailio.cfg:5 duplicate_uri is set again: what /etc/kamailio/kamailio.cfg:4 says doesn't hold",
			"/etc/kamailio/kamailio.cfg:6 trace_on is set again: what /etc/kamailio/kamailio.cfg:3 says doesn't hold",
		}
		if lists != nil {
			wantNotes = wantNotes[1:]
		}
		diff(t, "notes", notes, wantNotes)
		if got := fmt.Sprint(p.Places()["siptrace.trace_on"], p.Places()["local"]); got !=
			"[/etc/kamailio/kamailio.cfg:3 /etc/kamailio/kamailio.cfg:6] [/etc/kamailio/listen.cfg:1 /etc/kamailio/kamailio.cfg:10]" {
			t.Errorf("places: got %s", got)
		}
	}
}

func TestKoanfErrors(t *testing.T) {
	p := &Parser{Path: "k.cfg"}
	if len(p.Places()) != 0 || p.Config() != nil {
		t.Error("a parser that has read nothing has places")
	}
	for src, want := range map[string]string{
		"fork=no\n)": "k.cfg:2: unexpected",
		`modparamx("siptrace", "db_url", "$var(x)")`: "k.cfg:1: parameter db_url of siptrace hangs on a variable: $var(x) has no value here; its value is known only within Kamailio",
	} {
		var e *Error
		if _, err := p.Unmarshal([]byte(src)); !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := p.Marshal(map[string]any{"siptrace": map[string]any{"x": 1.5}}); err == nil {
		t.Error("Marshal took a float")
	}
}

func TestKoanfMarshal(t *testing.T) {
	p := &Parser{Path: "k.cfg", Lists: []string{"duplicate_uri"}}
	want := map[string]any{
		"siptrace": map[string]any{
			"db_url": "mysql://u:p\"\\x41@h/d\n", "trace_on": int64(-1), "duplicate_uri": []string{"sip:a", "sip:b"},
		},
		"local": []string{"udp:192.0.2.1:5060", "udp:[::1]:5062"},
	}
	b, err := p.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Unmarshal(b)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s\n got %v, %v\nwant %v", b, got, err, want)
	}
}
