package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// The examples of JSON-RPC 2.0, section 7, and what else strict asks for.
func TestStrict(t *testing.T) {
	const (
		parseError = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`
		notFound   = `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}`
	)
	invalid := func(what, id string) string {
		return `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: ` + what + `"},"id":` + id + `}`
	}
	noObject := invalid("not an object", "null")
	noVersion := invalid(`\"jsonrpc\" is not \"2.0\"`, "null")
	tests := []struct {
		name, in, want string
		status         int
	}{
		{"positional", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, `{"jsonrpc":"2.0","result":19,"id":1}`, 200},
		{"named", `{"jsonrpc": "2.0", "method": "subtract", "params": {"a": 42, "b": 23}, "id": 3}`, `{"jsonrpc":"2.0","result":19,"id":3}`, 200},
		{"notification", `{"jsonrpc": "2.0", "method": "subtract", "params": [1, 2]}`, "", 204},
		{"notification of an unknown method", `{"jsonrpc": "2.0", "method": "foobar"}`, "", 204},
		{"unknown method", `{"jsonrpc": "2.0", "method": "foobar", "id": 1}`, notFound, 200},
		{"broken", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, parseError, 200},
		{"nothing", ``, parseError, 200},
		{"more behind", `{"jsonrpc": "2.0", "method": "subtract", "id": 1} x`, parseError, 200},
		{"leading zero", `{"jsonrpc": "2.0", "method": "subtract", "id": 01}`, parseError, 200},
		{"too deep", strings.Repeat("[", 65) + strings.Repeat("]", 65), parseError, 200},
		{"method not a string", `{"jsonrpc": "2.0", "method": 1, "params": "bar", "id": 1}`, invalid(`\"method\" is not a string`, "1"), 200},
		{"method not a string, no id", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, invalid(`\"method\" is not a string`, "null"), 200},
		{"params not structured", `{"jsonrpc": "2.0", "method": "subtract", "params": "bar", "id": 1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params: neither an array nor an object"},"id":1}`, 200},
		{"no version", `{"method": "subtract", "id": 1}`, strings.Replace(noVersion, "null", "1", 1), 200},
		{"version a number", `{"jsonrpc": 2.0, "method": "subtract"}`, noVersion, 200},
		{"names have case", `{"jsonrpc": "2.0", "Method": "subtract", "id": 1}`, invalid(`\"method\" is not a string`, "1"), 200},
		{"not an object", `"x"`, noObject, 200},
		{"empty array", `[]`, invalid("batch of 0 requests, at least 1 and at most 256", "null"), 200},
		{"too large batch", `[1` + strings.Repeat(`,1`, 256) + `]`, invalid("batch of 257 requests, at least 1 and at most 256", "null"), 200},
		{"invalid batch of one", `[1]`, "[" + noObject + "]", 200},
		{"invalid batch", `[1,[2],{"a":1}]`, "[" + noObject + "," + noObject + "," + noVersion + "]", 200},
		{"batch of notifications", `[{"jsonrpc": "2.0", "method": "subtract"}, {"jsonrpc": "2.0", "method": "x"}]`, "", 204},
		{
			"batch", `[{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": "a"}, {"jsonrpc": "2.0", "method": "subtract"}, {"foo": "boo"}, {"jsonrpc": "2.0", "method": "foobar", "id": 1}]`,
			`[{"jsonrpc":"2.0","result":19,"id":"a"},` + noVersion + `,` + notFound + `]`, 200,
		},
		{"id null", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": null}`, `{"jsonrpc":"2.0","result":19,"id":null}`, 200},
		{"id as written", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 12345678901234567.10}`, `{"jsonrpc":"2.0","result":19,"id":12345678901234567.10}`, 200},
		{"id of an object", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": {}}`, invalid(`\"id\" is not a string, a number or null`, "null"), 200},
		{"fault keeps its code", `{"jsonrpc": "2.0", "method": "fault", "id": 1}`, `{"jsonrpc":"2.0","error":{"code":400,"message":"bad"},"id":1}`, 200},
		{"internal", `{"jsonrpc": "2.0", "method": "error", "id": 1}`, `{"jsonrpc":"2.0","error":{"code":-32603,"message":"Internal error"},"id":1}`, 200},
		{"no result", `{"jsonrpc": "2.0", "method": "nothing", "id": 1}`, `{"jsonrpc":"2.0","result":null,"id":1}`, 200},
		{"records", `{"jsonrpc": "2.0", "method": "records", "id": 1}`, `{"jsonrpc":"2.0","result":["a","b` + "\ufffd" + `",1e-09],"id":1}`, 200},
		{"reply too big", `[{"jsonrpc": "2.0", "method": "long", "id": 1}]`, `{"jsonrpc":"2.0","error":{"code":500,"message":"reply too big: 1038 bytes, at most 1000"},"id":null}`, 200},
	}
	result := func(v any, err error) rpc.Handler {
		return func(context.Context, *rpc.Call) (any, error) { return v, err }
	}
	srv := jsonrpc.Server{Strict: true, Compact: true, Registry: registry(t,
		rpc.Method{Name: "subtract", Handler: func(_ context.Context, c *rpc.Call) (any, error) {
			if len(c.Params) < 2 {
				return nil, nil
			}
			return c.Params[0].(int64) - c.Params[1].(int64), nil
		}},
		rpc.Method{Name: "fault", Handler: result(nil, rpc.Faultf(400, "bad"))},
		rpc.Method{Name: "error", Handler: result(nil, errors.New("secret"))},
		rpc.Method{Name: "nothing", Handler: result(nil, nil)},
		rpc.Method{Name: "records", Handler: result(rpc.Records{"a", "b\xff", 1e-9}, nil)},
		rpc.Method{Name: "long", Handler: result(strings.Repeat("x", 1000), nil)},
	)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := srv
			if tt.name == "reply too big" {
				srv.MaxReply = 1000
			}
			a := srv.Answer(t.Context(), rpc.NewPeer("test", ""), []byte(tt.in))
			if string(a.Body) != tt.want || a.Status != tt.status {
				t.Errorf("got  %d %s\nwant %d %s", a.Status, a.Body, tt.status, tt.want)
			}
			if a.Body != nil && !json.Valid(a.Body) {
				t.Error("not JSON")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		fault  rpc.Fault
		status int
		reason string
	}{
		{rpc.Fault{Code: 400, Text: "bad"}, 400, "bad"},
		{rpc.Fault{Code: 606, Text: "rpc available only over binrpc (ctl)"}, 606, "rpc available only over binrpc (ctl)"},
		{rpc.Fault{Code: 500, Text: "a\r\nSet-Cookie: b"}, 500, "a  Set-Cookie: b"},
		{rpc.Fault{Code: -1, Text: "x"}, 500, "x"},
		{rpc.Fault{Code: 200, Text: "x"}, 500, "x"},
	}
	for _, tt := range tests {
		srv := jsonrpc.Server{Registry: registry(t, rpc.Method{Name: "m", Handler: func(context.Context, *rpc.Call) (any, error) { return nil, &tt.fault }})}
		a := srv.Answer(t.Context(), rpc.Peer{}, []byte(`{"jsonrpc":"2.0","method":"m"}`))
		if a.Status != tt.status || a.Reason != tt.reason {
			t.Errorf("%v: got %d %q, want %d %q", &tt.fault, a.Status, a.Reason, tt.status, tt.reason)
		}
	}
}

func TestMaxReply(t *testing.T) {
	reg := registry(t, rpc.Method{Name: "m", Handler: func(context.Context, *rpc.Call) (any, error) { return strings.Repeat("x", 60), nil }})
	for limit, want := range map[int]string{
		0:  `{"jsonrpc":"2.0","result":"` + strings.Repeat("x", 60) + `","id":7}`,
		96: `{"jsonrpc":"2.0","result":"` + strings.Repeat("x", 60) + `","id":7}`,
		95: `{"jsonrpc":"2.0","error":{"code":500,"message":"reply too big: 96 bytes, at most 95"},"id":7}`,
	} {
		srv := jsonrpc.Server{Registry: reg, Compact: true, MaxReply: limit}
		if got := string(srv.Answer(t.Context(), rpc.Peer{}, []byte(`{"jsonrpc":"2.0","method":"m","id":7}`)).Body); got != want {
			t.Errorf("limit %d: got %s, want %s", limit, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	long := strings.Repeat("x", jsonrpc.MaxDocument)
	tests := []struct {
		name, in string
		want     jsonrpc.Request
		err      string
	}{
		{
			"kamctl", `{"jsonrpc": "2.0", "method": "siptrace.status", "params": ["on", 1, 1.5, true, null], "reply_name": "kamailio_receiver_1", "id": 1}`,
			jsonrpc.Request{Method: "siptrace.status", Params: []any{"on", int64(1), 1.5, true, nil}, ReplyName: "kamailio_receiver_1"},
			"",
		},
		{
			"nested", `{"jsonrpc":"2.0","method":"m","params":{"a":[1,[]],"b":{"c":{}}}}`,
			jsonrpc.Request{Method: "m", Params: []any{rpc.List{int64(1), rpc.List{}}, rpc.Struct{{Name: "c", Value: rpc.Struct{}}}}},
			"",
		},
		{
			"numbers", `{"jsonrpc":"2.0","method":"m","params":[9223372036854775807,9223372036854775808,0.3,1e3,-,1e]}`,
			jsonrpc.Request{Method: "m", Params: []any{int64(math.MaxInt64), 9223372036854775808.0, 0.3, 1000.0, int64(0), 1.0}},
			"",
		},
		{"no reply name before the version is right", `{"jsonrpc":"1.0","reply_name":"x"}`, jsonrpc.Request{}, ""},
		{"reply name of a bad request", `{"jsonrpc":"2.0","reply_name":"x"}`, jsonrpc.Request{ReplyName: "x"}, ""},
		{"too long", `{"x":"` + long, jsonrpc.Request{}, "jsonrpc: byte 65456: 65462 bytes, at most 65456"},
		{"too deep", strings.Repeat(`{"a":`, 65), jsonrpc.Request{}, "jsonrpc: byte 320: arrays and objects more than 64 deep"},
		{"string not ended", `{"a":"`, jsonrpc.Request{}, "jsonrpc: byte 6: a string is not ended"},
		{"escape not ended", `{"a":"\`, jsonrpc.Request{}, "jsonrpc: byte 6: a string is not ended"},
		{"no colon", `{"a" 1}`, jsonrpc.Request{}, "jsonrpc: byte 5: a colon is missing"},
		{"no value", `{"a":}`, jsonrpc.Request{}, "jsonrpc: byte 5: a value is missing"},
		{"no name", `{1:2}`, jsonrpc.Request{}, "jsonrpc: byte 1: a member name is missing"},
		{"no comma", `{"a":[1 2]}`, jsonrpc.Request{}, "jsonrpc: byte 8: a comma or an end is missing"},
		{"hexadecimal", `{"a":"\u00+1"}`, jsonrpc.Request{}, "jsonrpc: byte 8: four hexadecimal digits are missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := jsonrpc.Server{}.Parse([]byte(tt.in))
			if tt.err != "" {
				if _, ok := errors.AsType[*jsonrpc.SyntaxError](err); !ok || err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if req.Method != tt.want.Method || req.ReplyName != tt.want.ReplyName || !reflect.DeepEqual(req.Params, tt.want.Params) {
				t.Errorf("got %+v, want %+v", req, tt.want)
			}
		})
	}
}

func TestRequestAppend(t *testing.T) {
	req := jsonrpc.Request{Method: "m", Params: []any{"a\"b", int64(5), 1.5, nil}, ReplyName: "r", ID: int64(7)}
	got, err := req.Append([]byte("x"))
	if want := `x{"jsonrpc":"2.0","method":"m","params":["a\"b",5,1.5,null],"reply_name":"r","id":7}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	got, err = jsonrpc.Request{Method: "m"}.Append(nil)
	if want := `{"jsonrpc":"2.0","method":"m"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	got, err = jsonrpc.Request{Method: "m", Params: []any{rpc.List{5}}}.Append([]byte("x"))
	if e, ok := errors.AsType[*jsonrpc.TypeError](err); !ok || e.Value != 5 || string(got) != "x" {
		t.Errorf("got %s, %v; want a TypeError and nothing written", got, err)
	}
}

func TestReply(t *testing.T) {
	tests := []struct {
		in   string
		want jsonrpc.Reply
		err  string
	}{
		{`{"jsonrpc":"2.0","result":[1,{"a":"b"}],"id":1}`, jsonrpc.Reply{ID: int64(1), Value: rpc.List{int64(1), rpc.Struct{{Name: "a", Value: "b"}}}}, ""},
		{`{"jsonrpc":"2.0","result":null,"error":null,"id":"x"}`, jsonrpc.Reply{ID: "x"}, ""},
		{`{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":null}`, jsonrpc.Reply{Fault: &rpc.Fault{Code: 500, Text: "Method Not Found"}}, ""},
		{`{"error":"text"}`, jsonrpc.Reply{Fault: &rpc.Fault{}}, ""},
		{`{"error":{"code":"x","message":1}}`, jsonrpc.Reply{Fault: &rpc.Fault{}}, ""},
		{`{"id":1}`, jsonrpc.Reply{ID: int64(1)}, "jsonrpc: byte 8: neither result nor error"},
		{`[]`, jsonrpc.Reply{}, "jsonrpc: byte 0: not an object"},
		{`{"result":`, jsonrpc.Reply{}, "jsonrpc: byte 10: a value is missing"},
	}
	for _, tt := range tests {
		var got jsonrpc.Reply
		err := got.Decode([]byte(tt.in))
		if text := fmt.Sprint(err); err == nil && tt.err != "" || err != nil && text != tt.err || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v; want %+v, %s", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestFramer(t *testing.T) {
	const a, b = `{"jsonrpc":"2.0","id":1}`, `{ "jsonrpc": "2.0",` + "\n" + `"id": 2}`
	tests := []struct {
		name, in string
		want     []string
		dropped  int
	}{
		{"one", a, []string{a}, 0},
		{"blanks around", " \n\t" + a + "\n\n", []string{a}, 0},
		{"two in one", a + b, []string{a, b}, 0},
		{"two lines", a + "\n" + b + "\n", []string{a, b}, 0},
		{"object in object", `{"a":{"b":{}}}` + a, []string{`{"a":{"b":{}}}`, a}, 0},
		{"brace in a string", `{"a":"}"}` + a, []string{`{"a":"}"}`, a}, 0},
		{"quote in a string", `{"a":"\"}"}` + a, []string{`{"a":"\"}"}`, a}, 0},
		{"backslash at the end of a string", `{"a":"\\"}` + a, []string{`{"a":"\\"}`, a}, 0},
		{"apostrophe", `{"a":'}'}` + a, []string{`{"a":'}`, `'}` + a}, 0},
		{"words before", "hello\n" + a, []string{"hello\n" + a}, 0},
		{"closing brace before", "}" + a, []string{"}" + a}, 0},
		{"batch", "[" + a + "," + a + "]", []string{"[" + a, "," + a}, 0},
		{"odd quote", `{"a":"o"n"}` + "\n" + a + "\n", []string{a}, 12},
		{"odd quote, blanks", `{"a":"o"n"}` + "\n\n \t" + b, []string{b}, 12},
		{"odd quote before", `"` + "\n" + a, []string{a}, 2},
		{"brace not closed", `{"a":{` + "\n" + a, []string{a}, 7},
		{"line of another kind", `{"a":{` + "\n" + `{"b":1}}}`, []string{`{"a":{` + "\n" + `{"b":1}}}`}, 0},
		{"too many blanks", `{"a":"` + "\n" + strings.Repeat(" ", 81) + a, nil, 0},
		{"longest", `{"a":"` + strings.Repeat("x", 8182) + `"}`, []string{`{"a":"` + strings.Repeat("x", 8182) + `"}`}, 0},
		{"too long", `{"a":"` + strings.Repeat("x", 8183) + `"}` + "\n" + a, []string{a}, 8192},
		{"much too long", `{"a":"` + strings.Repeat("x\n", 50000) + `"}` + "\n" + a, []string{a}, 100009},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, 4096, len(tt.in)} {
			t.Run(fmt.Sprint(tt.name, " by ", size), func(t *testing.T) {
				var f jsonrpc.Framer
				var got []string
				for rest := []byte(tt.in); len(rest) > 0; rest = rest[min(size, len(rest)):] {
					f.Write(bytes.Clone(rest[:min(size, len(rest))]))
					for doc := f.Next(); doc != nil; doc = f.Next() {
						got = append(got, string(doc))
					}
				}
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got %.200q, want %.200q", got, tt.want)
				}
				if f.Dropped != tt.dropped {
					t.Errorf("dropped %d, want %d", f.Dropped, tt.dropped)
				}
			})
		}
	}
}

// After a pause a new document begins, whatever was there.
func TestFramerPause(t *testing.T) {
	const doc = `{"jsonrpc":"2.0","id":1}`
	for _, junk := range []string{"", "hello\n", `{"a":"o"n"}` + "\n", `{"a":{`, `"`, `{"a":"\`, strings.Repeat("{", 9000)} {
		var f jsonrpc.Framer
		f.Write([]byte(junk))
		if got := f.Next(); got != nil {
			t.Errorf("%.20q: got %q, want nothing", junk, got)
		}
		n := f.Pause()
		f.Write([]byte(doc))
		if got := string(f.Next()); got != doc {
			t.Errorf("%.20q: got %q, want %q", junk, got, doc)
		}
		if f.Dropped != len(strings.TrimSpace(junk)) && f.Dropped != len(junk) || n > f.Dropped {
			t.Errorf("%.20q: dropped %d, the last %d; want %d", junk, f.Dropped, n, len(junk))
		}
	}
}

func TestCheckReplyName(t *testing.T) {
	tests := []struct {
		name string
		want string
	}{
		{"kamailio_receiver_13777", ""},
		{strings.Repeat("x", 122), ""},
		{"", "jsonrpc: no reply_name"},
		{strings.Repeat("x", 123), `jsonrpc: reply_name "` + strings.Repeat("x", 40) + `": path of 128 bytes, at most 127`},
		{"kamailio_rpc_reply.fifo", `jsonrpc: reply_name "kamailio_rpc_reply.fifo": dots, slashes and backslashes are refused`},
		{"../x", `jsonrpc: reply_name "../x": dots, slashes and backslashes are refused`},
		{"a/b", `jsonrpc: reply_name "a/b": dots, slashes and backslashes are refused`},
		{`a\b`, `jsonrpc: reply_name "a\\b": dots, slashes and backslashes are refused`},
		{"a\x00b", `jsonrpc: reply_name "a\x00b": dots, slashes and backslashes are refused`},
	}
	for _, tt := range tests {
		got := ""
		if err := jsonrpc.CheckReplyName("/tmp/", tt.name); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.30q: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAllocs(t *testing.T) {
	doc := []byte(`{"jsonrpc":"2.0","id":1}` + "\n")
	var f jsonrpc.Framer
	f.Write(bytes.Repeat(doc, 150))
	if got := testing.AllocsPerRun(100, func() {
		if f.Next() == nil {
			t.Error("no document")
		}
	}); got > 0 {
		t.Errorf("framing: got %v allocations, want none", got)
	}
}

func BenchmarkAnswer(b *testing.B) {
	srv := jsonrpc.Server{Registry: registry(b,
		rpc.Method{Name: "siptrace.status", Handler: status("Enabled")},
		rpc.Method{Name: "core.uptime", Handler: func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{{Name: "now", Value: "Sat Nov 21 05:23:34 2026"}, {Name: "up_since", Value: "Sat Nov 21 05:23:30 2026"}, {Name: "uptime", Value: int64(4)}}, nil
		}},
	)}
	for _, r := range recorded(b) {
		if r.Name != "kamctl_rpc_siptrace_status_on" && r.Name != "kamcli_sock_uptime" {
			continue
		}
		b.Run(r.Name, func(b *testing.B) {
			doc, peer := []byte(r.Request), rpc.NewPeer("unixgram", "")
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if a := srv.Answer(b.Context(), peer, doc); a.Body == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}
