package jsonrpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// recording is one exchange with jsonrpcs of Kamailio 5.6.
type recording struct {
	Name, Transport, Request, Reply, Status string
	Compact                                 bool
}

func recorded(tb testing.TB) []recording {
	tb.Helper()
	data, err := os.ReadFile("testdata/recorded.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	var all []recording
	for line := range strings.Lines(string(data)) {
		var r recording
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			tb.Fatal(err)
		}
		all = append(all, r)
	}
	if len(all) < 90 {
		tb.Fatalf("%d recordings, want them all", len(all))
	}
	return all
}

// status is siptrace.status of a server that has tracing in that state.
func status(state string) rpc.Handler {
	return func(_ context.Context, c *rpc.Call) (any, error) {
		s, ok := c.Str(0)
		s = strings.ToLower(s)
		switch {
		case !ok:
			return nil, rpc.Faultf(500, "Not enough parameters (on, off or check)")
		case strings.HasPrefix(s, "on"):
			return "Enabled", nil
		case strings.HasPrefix(s, "off"):
			return "Disabled", nil
		case strings.HasPrefix(s, "check"):
			return state, nil
		}
		return nil, rpc.Faultf(500, "Bad parameter (on, off or check)")
	}
}

func registry(tb testing.TB, methods ...rpc.Method) *rpc.Registry {
	tb.Helper()
	reg := rpc.NewRegistry()
	for _, m := range methods {
		if err := reg.Register(m); err != nil {
			tb.Fatal(err)
		}
	}
	return reg
}

// stub is a registry whose methods answer what the recorded reply holds.
func stub(t *testing.T, r recording) *rpc.Registry {
	t.Helper()
	var rep jsonrpc.Reply
	if r.Reply != "" {
		if err := rep.Decode([]byte(r.Reply)); err != nil {
			t.Fatal(err)
		}
	}
	state := "Enabled"
	if rep.Value == "Disabled" {
		state = "Disabled"
	}
	const help = "Get status or turn on/off siptrace. Parameters: on, off or check."
	methods := []rpc.Method{{Name: "siptrace.status", Help: help, Handler: status(state)}}
	names := func(context.Context) []string { return nil }
	req, _ := jsonrpc.Server{}.Parse([]byte(r.Request))
	switch {
	case req == nil || req.Method == "" || rep.Fault != nil && rep.Fault.Text == "Method Not Found" || req.Method == "siptrace.status":
	case req.Method == "system.listMethods":
		names = func(context.Context) (names []string) {
			list, _ := rep.Value.(rpc.List)
			for _, name := range list {
				names = append(names, name.(string))
			}
			return names
		}
	case strings.HasPrefix(req.Method, "system."):
	default:
		methods = append(methods, rpc.Method{Name: req.Method, Handler: func(context.Context, *rpc.Call) (any, error) {
			if rep.Fault != nil {
				return nil, rep.Fault
			}
			return rep.Value, nil
		}})
	}
	reg := registry(t, methods...)
	reg.UnknownNames = names
	return reg
}

// The recorded request must give the recorded reply, byte for byte.
func TestRecorded(t *testing.T) {
	// Where we differ from jsonrpcs on purpose, and what comes instead.
	differ := map[string]string{
		// The server died of it.
		"dgram_jsonrpc_num": "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t{\n\t},\n\t\"id\":\t1\n}",
		// No answer, as there was no socket and no FIFO to send it to: the
		// listener's part.
		"dgram_unbound_client":     "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Enabled\",\n\t\"id\":\t1\n}",
		"fifo_reply_name_not_fifo": "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Enabled\",\n\t\"id\":\t1\n}",
		// Alone, without the odd quote before it, it is a good command.
		"fifo_after_quote": "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Enabled\",\n\t\"id\":\t2\n}",
	}
	for _, r := range recorded(t) {
		t.Run(r.Name, func(t *testing.T) {
			want := r.Reply
			if s, ok := differ[r.Name]; ok {
				want = s
			}
			srv := jsonrpc.Server{Registry: stub(t, r), Compact: r.Compact}
			got, gotStatus := "", ""
			if r.Transport == "fifo" {
				got = overFIFO(t, srv, r.Request)
			} else if a := srv.Answer(t.Context(), rpc.NewPeer("test", ""), []byte(r.Request)); a.Body != nil {
				got, gotStatus = string(a.Body), fmt.Sprint(a.Status, " ", a.Reason)
			}
			if got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if r.Transport == "http" && gotStatus != r.Status {
				t.Errorf("got status %q, want %q", gotStatus, r.Status)
			}
		})
	}
}

// overFIFO does what a FIFO's listener does, and returns all replies.
func overFIFO(t *testing.T, srv jsonrpc.Server, in string) (out string) {
	t.Helper()
	var f jsonrpc.Framer
	for _, piece := range []string{in[:len(in)/2], in[len(in)/2:]} {
		f.Write([]byte(piece))
		for doc := f.Next(); doc != nil; doc = f.Next() {
			req, err := srv.Parse(doc)
			if err != nil || jsonrpc.CheckReplyName("/tmp/", req.ReplyName) != nil {
				continue
			}
			out += string(srv.Run(t.Context(), rpc.NewPeer("fifo", ""), req).Body)
		}
	}
	return out
}

// An odd quote, or 8505 bytes, made Kamailio swallow every later command.
func TestRecordedWedges(t *testing.T) {
	var quote, next string
	for _, r := range recorded(t) {
		switch r.Name {
		case "fifo_quote":
			quote = r.Request
		case "fifo_after_quote":
			next = r.Request
		}
	}
	long := `{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"pad":"` + strings.Repeat("x", 8390) +
		`","reply_name":"w","id":1}` + "\n"
	srv := jsonrpc.Server{Registry: registry(t, rpc.Method{Name: "siptrace.status", Handler: status("Enabled")}), Compact: true}
	for name, in := range map[string]string{"quote": quote, "long": long} {
		t.Run(name, func(t *testing.T) {
			got := overFIFO(t, srv, in+next)
			if want := `{"jsonrpc":"2.0","result":"Enabled","id":2}`; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// What Kamailio 5.6.3 was seen to answer, with white space taken out. "" = nothing.
func TestLenient(t *testing.T) {
	const call = `{"jsonrpc":"2.0","method":"core.version",`
	ok := func(id string) string { return `{"jsonrpc":"2.0","result":"V","id":` + id + `}` }
	const (
		empty    = `{"jsonrpc":"2.0","result":{},"id":1}`
		notFound = `{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":1}`
	)
	tests := map[string]string{
		// ids
		call + `"id":0}`:                        ok(`0`),
		call + `"id":-0}`:                       ok(`0`),
		call + `"id":-1}`:                       ok(`-1`),
		call + `"id":1.0}`:                      ok(`1`),
		call + `"id":-1.5}`:                     ok(`-1.500000`),
		call + `"id":0.1}`:                      ok(`0.100000`),
		call + `"id":1e20}`:                     ok(`100000000000000000000`),
		call + `"id":1e-7}`:                     ok(`1.000000e-07`),
		call + `"id":9.9e-7}`:                   ok(`9.900000e-07`),
		call + `"id":0.000001}`:                 ok(`0.000001`),
		call + `"id":1e-17}`:                    ok(`0`),
		call + `"id":-1e-17}`:                   ok(`0`),
		call + `"id":3e-16}`:                    ok(`3.000000e-16`),
		call + `"id":1e-400}`:                   ok(`0`),
		call + `"id":1e60}`:                     ok(`999999999999999949387135297074018866963645011013410073083904`),
		call + `"id":1234567890.5}`:             ok(`1.234568e+09`),
		call + `"id":123456789.5}`:              ok(`123456789.500000`),
		call + `"id":999999999.25}`:             ok(`999999999.250000`),
		call + `"id":1000000000.25}`:            ok(`1.000000e+09`),
		call + `"id":1000000000.0000001}`:       ok(`1000000000`),
		call + `"id":2147483646.9999999999}`:    ok(`2.147484e+09`),
		call + `"id":4503599627370496.5}`:       ok(`4503599627370497`),
		call + `"id":2147483648}`:               ok(`2147483648`),
		call + `"id":-2147483649}`:              ok(`-2147483649`),
		call + `"id":9007199254740993}`:         ok(`9007199254740992`),
		call + `"id":664832648542194635}`:       ok(`664832648542194560`),
		call + `"id":12315158777836213845757}`:  ok(`12315158777836211273728`),
		call + `"id":01}`:                       ok(`1`),
		call + `"id":1e}`:                       ok(`1`),
		call + `"id":1E+2}`:                     ok(`100`),
		call + `"id":-}`:                        ok(`0`),
		call + `"id":true}`:                     ok(`1`),
		call + `"id":false}`:                    ok(`0`),
		call + `"id":null}`:                     ok(`0`),
		call + `"id":[1]}`:                      ok(`0`),
		call + `"id":{"a":1}}`:                  ok(`0`),
		call + `"id":""}`:                       ok(`""`),
		call + `"id":"a\"b\\c\/d"}`:             ok(`"a\"b\\c/d"`),
		call + `"id":"\u00e9\n\x"}`:             ok(`"é\nx"`),
		call + `"id":"\b\f\n\r\t\u0001\u007f"}`: ok(`"\b\f\n\r\t\u0001` + "\x7f\""),
		call + `"id":"\ud83d\ude00"}`:           ok(`"😀"`),
		call + `"id":"\ud83d"}`:                 ok(`""`),
		call + `"id":"\ude00"}`:                 ok(`""`),
		call + `"id":"\u0000x"}`:                ok(`"x"`),
		call + "\"id\":\"a\nb\x01\"}":           ok(`"a\nb\u0001"`),
		call + "\"id\":\"\xff\"}":               ok("\"\xff\""),
		call + `"id":+1}`:                       "",
		call + `"id":.5}`:                       "",
		call + `"id":1.}`:                       "",
		call + `"id":--1}`:                      "",
		call + `"id":0x10}`:                     "",
		call + `"id":NaN}`:                      "",
		call + `"id":tru}`:                      "",
		call + `"id":TRUE}`:                     "",
		call + `"id":'a'}`:                      "",
		call + `"id":"\u12"}`:                   "",
		// Kamailio writes inf, which no reader takes.
		call + `"id":1e400}`: ok(`null`),

		// members
		call + `"Id":1}`:        ok(`1`),
		call + `"\u0069d":1}`:   ok(`1`),
		call + `"id":1,"id":2}`: ok(`1`),
		`{"jsonrpc":"2.0","method":"core.version","method":"x","id":1}`:     ok(`1`),
		`{"jsonrpc":"2.0","method":"x","Method":"core.version","id":1}`:     notFound,
		`{"jsonrpc":"2.0","method":"","id":1}`:                              notFound,
		`{"jsonrpc":"2.0","method":" core.version","id":1}`:                 notFound,
		`{"jsonrpc":"2.1","method":"core.version","id":1}`:                  empty,
		`{"jsonrpc":"2","method":"core.version","id":1}`:                    empty,
		`{"jsonrpc":"","method":"core.version","id":1}`:                     empty,
		`{"jsonrpc":"2.0","method":"core.version","params":{},"id":1}`:      ok(`1`),
		`{"jsonrpc":"2.0","method":"core.version","params":[[[1]]],"id":1}`: ok(`1`),
		`{"jsonrpc":"2.0","method":"core.version","params":1,"id":1}`:       empty,
		`{"jsonrpc":"2.0","method":"core.version","params":true,"id":1}`:    empty,
		`{"jsonrpc":"2.0","method":"core.version","params":"","id":1}`:      empty,
		`{"jsonrpc":"2.0","method":"core.version","reply_name":5,"id":1}`:   ok(`1`),
		`{"jsonrpc":"2.0","method":"core.version","id":1,"x":[]}`:           ok(`1`),
		`{"jsonrpc":"2.0","method":"core.echo","id":1}`:                     `{"jsonrpc":"2.0","result":[],"id":1}`,
		`{"jsonrpc":"2.0","method":"stats.reset_statistics","id":1}`:        empty,
		`{"jsonrpc":"2.0","method":"stats.clear_statistics","id":1}`:        `{"jsonrpc":"2.0","result":"b","id":1}`,
		`{"jsonrpc":"2.0","method":"core.version"}`:                         `{"jsonrpc":"2.0","result":"V"}`,
		// These ended the server.
		`{"jsonrpc":"2.0","method":5,"id":1}`:                empty,
		`{"jsonrpc":2.0,"method":"core.version","id":1}`:     empty,
		`{"jsonrpc":null,"method":"core.version","id":1}`:    empty,
		`{"jsonrpc":"2.0","method":["core.version"],"id":1}`: empty,
		call + `"id":123456789.123456789}`:                   ok(`123456789.123457`),

		// documents
		call + `"id":1}}}garbage`:      ok(`1`),
		call + "\"id\":1}\x00\x01":     ok(`1`),
		"  \n\t" + call + `"id":1}`:    ok(`1`),
		"\x01\x02" + call + `"id":1}`:  ok(`1`),
		`{}`:                           `{"jsonrpc":"2.0","result":{}}`,
		`[]`:                           `{"jsonrpc":"2.0","result":{}}`,
		`1`:                            `{"jsonrpc":"2.0","result":{}}`,
		`"a"`:                          `{"jsonrpc":"2.0","result":{}}`,
		`null`:                         `{"jsonrpc":"2.0","result":{}}`,
		``:                             "",
		"\x00" + call + `"id":1}`:      "",
		"\ufeff" + call + `"id":1}`:    "",
		`hello ` + call + `"id":1}`:    "",
		call + `"id":1,}`:              "",
		call + `"id":1`:                "",
		call + `"id":1,"x":[1,]}`:      "",
		call + `"id":1,"x":[,1]}`:      "",
		call + "\"id\":\"a\x00b\"}":    "",
		`{"jsonrpc":"2.0" "method":1}`: "",
		`{,"jsonrpc":"2.0"}`:           "",
		`{jsonrpc:"2.0"}`:              "",
	}
	value := func(v any) rpc.Handler { return func(context.Context, *rpc.Call) (any, error) { return v, nil } }
	srv := jsonrpc.Server{Compact: true, Registry: registry(t,
		rpc.Method{Name: "core.version", Handler: value("V")},
		rpc.Method{Name: "core.echo", Array: true, Handler: value(nil)},
		rpc.Method{Name: "stats.reset_statistics", Handler: value(nil)},
		rpc.Method{Name: "stats.clear_statistics", Handler: value(rpc.Records{"a", "b"})},
	)}
	for in, want := range tests {
		if got := string(srv.Answer(t.Context(), rpc.NewPeer("test", ""), []byte(in)).Body); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
}

// Nested arrays, null and escapes, as Kamailio printed dispatcher.list and
// htable.dump.
func TestPretty(t *testing.T) {
	dest := func(uri string, more ...rpc.Member) rpc.Struct {
		d := append(rpc.Struct{{Name: "URI", Value: uri}, {Name: "PRIORITY", Value: int64(0)}}, more...)
		return rpc.Struct{{Name: "DEST", Value: d}}
	}
	attrs := rpc.Member{Name: "ATTRS", Value: rpc.Struct{{Name: "BODY", Value: "weight=50"}, {Name: "DUID", Value: nil}}}
	set := func(id int64, targets ...any) rpc.Member {
		return rpc.Member{Name: "SET", Value: rpc.Struct{{Name: "ID", Value: id}, {Name: "TARGETS", Value: rpc.List(targets)}}}
	}
	list := rpc.Struct{
		{Name: "NRSETS", Value: int64(2)},
		{Name: "RECORDS", Value: rpc.Struct{set(2, dest("sip:127.0.0.1:5082")), set(1, dest("sip:127.0.0.1:5081"), dest("sip:127.0.0.1:5080", attrs))}},
	}
	dump := rpc.Struct{
		{Name: "entry", Value: int64(6)},
		{Name: "slot", Value: rpc.List{rpc.Struct{{Name: "name", Value: "k1"}, {Name: "value", Value: "v\"1\\/\\x"}}}},
	}
	tests := []struct {
		name          string
		value         any
		pretty, small string
	}{
		{
			"dispatcher.list", list, `{
		"NRSETS":	2,
		"RECORDS":	[{
				"SET":	{
					"ID":	2,
					"TARGETS":	[{
							"DEST":	{
								"URI":	"sip:127.0.0.1:5082",
								"PRIORITY":	0
							}
						}]
				}
			}, {
				"SET":	{
					"ID":	1,
					"TARGETS":	[{
							"DEST":	{
								"URI":	"sip:127.0.0.1:5081",
								"PRIORITY":	0
							}
						}, {
							"DEST":	{
								"URI":	"sip:127.0.0.1:5080",
								"PRIORITY":	0,
								"ATTRS":	{
									"BODY":	"weight=50",
									"DUID":	null
								}
							}
						}]
				}
			}]
	}`, `{"NRSETS":2,"RECORDS":[{"SET":{"ID":2,"TARGETS":[{"DEST":{"URI":"sip:127.0.0.1:5082","PRIORITY":0}}]}},{"SET":{"ID":1,"TARGETS":[{"DEST":{"URI":"sip:127.0.0.1:5081","PRIORITY":0}},{"DEST":{"URI":"sip:127.0.0.1:5080","PRIORITY":0,"ATTRS":{"BODY":"weight=50","DUID":null}}}]}}]}`,
		},
		{
			"htable.dump", rpc.List{dump, dump}, `[{
			"entry":	6,
			"slot":	[{
					"name":	"k1",
					"value":	"v\"1\\/\\x"
				}]
		}, {
			"entry":	6,
			"slot":	[{
					"name":	"k1",
					"value":	"v\"1\\/\\x"
				}]
		}]`, `[{"entry":6,"slot":[{"name":"k1","value":"v\"1\\/\\x"}]},{"entry":6,"slot":[{"name":"k1","value":"v\"1\\/\\x"}]}]`,
		},
		{
			"core.sockets_list",
			rpc.List{rpc.Struct{{Name: "socket", Value: "a"}, {Name: "socket", Value: "b"}}},
			"[{\n\t\t\t\"socket\":\t\"a\"\n\t\t}, {\n\t\t\t\"socket\":\t\"b\"\n\t\t}]", `[{"socket":"a"},{"socket":"b"}]`,
		},
		{
			"core.sockets_list of one",
			rpc.List{rpc.Struct{{Name: "socket", Value: "a"}}},
			"[{\n\t\t\t\"socket\":\t\"a\"\n\t\t}]", `[{"socket":"a"}]`,
		},
		{"core.ps", rpc.List{int64(1), "main", int64(-2), 0.5}, `[1, "main", -2, 0.500000]`, `[1,"main",-2,0.500000]`},
		{"forwarded", rpc.Forwarded{Body: []byte{1}, Value: "x"}, `"x"`, `"x"`},
		{"values", rpc.List{true, false, nil, []byte("ab"), rpc.Struct{}, rpc.List{}, int64(1) << 62}, "[true, false, null, \"ab\", {\n\t\t}, [], 4611686018427387904]", `[true,false,null,"ab",{},[],4611686018427387904]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := registry(t, rpc.Method{Name: "m", Handler: func(context.Context, *rpc.Call) (any, error) { return tt.value, nil }})
			doc := []byte(`{"jsonrpc":"2.0","method":"m","id":1}`)
			got := string(jsonrpc.Server{Registry: reg}.Answer(t.Context(), rpc.Peer{}, doc).Body)
			if want := "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t" + tt.pretty + ",\n\t\"id\":\t1\n}"; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			got = string(jsonrpc.Server{Registry: reg, Compact: true}.Answer(t.Context(), rpc.Peer{}, doc).Body)
			if want := `{"jsonrpc":"2.0","result":` + tt.small + `,"id":1}`; got != want {
				t.Errorf("compact: got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
