package binrpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
)

// packet is a packet of that kind with a body in hexadecimal and cookie 11.
func packet(t *testing.T, kind byte, body string) []byte {
	t.Helper()
	b := unhex(t, body)
	return append([]byte{0xA1, kind<<4 | 1<<2, byte(len(b) >> 8), byte(len(b)), 0x11}, b...)
}

// Each value as it is written, and what is read from that.
func TestValues(t *testing.T) {
	nested := rpc.Struct{{Name: "slot", Value: rpc.List{rpc.Struct{{Name: "n", Value: int64(1)}}, rpc.List{"x"}}}}
	tests := []struct {
		name  string
		value any
		hex   string // body of the reply
		back  any    // if not value
	}{
		{"zero", int64(0), "00", nil},
		{"one byte", int64(5), "1005", nil},
		{"two bytes", int64(400), "200190", nil},
		{"255", int64(255), "10ff", nil},
		{"negative", int64(-3), "40fffffffd", nil},
		{"largest", int64(math.MaxInt32), "407fffffff", nil},
		{"smallest", int64(math.MinInt32), "4080000000", nil},
		{"over 32 bits", int64(1 << 31), "6201f400000000", 2147483648.0},
		{"under 32 bits", int64(-1<<31 - 1), "82fffffe0bfffffc18", -2147483649.0},
		{"over a double", int64(math.MaxInt64), "91 14 39323233333732303336383534373735383037 00", "9223372036854775807"},
		{"empty string", "", "1100", nil},
		{"string", "on", "316f6e00", nil},
		{"string of 6", "abcdef", "7161626364656600", nil},
		{"string of 7", "abcdefg", "91086162636465666700", nil},
		{"double", 1.5, "2205dc", nil},
		{"double zero", 0.0, "02", nil},
		{"double negative", -1.5, "82fffffffffffffa24", nil},
		{"double rounded", 4.35, "2210fe", nil},
		{"double below a thousandth", 0.0001, "02", 0.0},
		{"double of 7 bytes", 21e11, "720775f05a074000", nil},
		{"double of 8 bytes", 9e15, "827ce66c50e2840000", nil},
		{"double too large", 1e19, "61 3165 2b3139 00", "1e+19"},
		{"double not a number", math.NaN(), "41 4e614e 00", "NaN"},
		{"true", true, "1001", int64(1)},
		{"false", false, "00", int64(0)},
		{"null", rpc.List{nil}, "91 0e 3c6e756c6c20737472696e673e 00", nil},
		{"bytes", []byte("ab\n"), "3661620a", nil},
		{"no bytes", []byte{}, "06", nil},
		{"struct", rpc.Struct{{Name: "k", Value: "v"}, {Name: "n", Value: int64(5)}}, "03 256b00 217600 256e00 1005 83", nil},
		{"struct with a name twice", rpc.Struct{{Name: "k", Value: "v"}, {Name: "k", Value: "w"}}, "03 256b00 217600 256b00 217700 83", nil},
		{"empty struct", rpc.Struct{}, "0383", nil},
		{"struct in struct", rpc.Struct{{Name: "a", Value: rpc.Struct{{Name: "b", Value: int64(1)}}}}, "03 256100 03 256200 1001 83 83", nil},
		{"array", rpc.List{rpc.List{int64(1), "x"}}, "04 1001 217800 84", rpc.List{int64(1), "x"}},
		{"array of arrays", rpc.List{rpc.List{rpc.List{}, rpc.List{int64(1)}}}, "04 0484 041001 84 84", rpc.List{rpc.List{}, rpc.List{int64(1)}}},
		{"array of structs", rpc.List{rpc.List{nested[:0]}}, "04 0383 84", rpc.List{rpc.Struct{}}},
		{"list in struct", nested, "03 55 736c6f7400 03 03 256e00 1001 83 03 217800 83 83 83", nil},
		{"empty list in struct", rpc.Struct{{Name: "a", Value: rpc.List{}}}, "03 256100 0383 83", rpc.Struct{{Name: "a", Value: rpc.Struct{}}}},
		{"nothing", nil, "", nil},
		{"empty list", rpc.List{}, "", nil},
		{"list of one", rpc.List{"x"}, "217800", "x"},
		{"list", rpc.List{"x", int64(1)}, "217800 1001", nil},
		{"records", rpc.Records{"x", int64(1)}, "217800 1001", rpc.List{"x", int64(1)}},
		{"forwarded", rpc.Forwarded{Body: []byte{0xA0, 0, 1, 5}, Value: "unused"}, "a0000105", int64(5)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := binrpc.Reply{Cookie: 1, Value: tt.value}.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			body := unhex(t, tt.hex)
			if want := append([]byte{0xA1, 0x10, byte(len(body)), 1}, body...); !bytes.Equal(got, want) {
				t.Errorf("wrote %x, want %x", got, want)
			}
			want := tt.back
			if list, ok := tt.value.(rpc.List); want == nil && (!ok || len(list) > 1) {
				want = tt.value
			}
			var rep binrpc.Reply
			if err := rep.Decode(got); err != nil || !reflect.DeepEqual(rep.Value, want) {
				t.Errorf("read %#v, %v; want %#v", rep.Value, err, want)
			}
		})
	}
}

// Records that our side never writes.
func TestDecode(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("04", n) + strings.Repeat("84", n) }
	tests := []struct {
		name string
		body string
		want any
		err  string
	}{
		{"int with a length", "900105", int64(5), ""},
		{"int with a long length", "a0000105", int64(5), ""},
		{"int with zeros before", "500000000005", int64(5), ""},
		{"int of 33 bits", "500100000000", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"int, size given but none", "80", int64(0), ""},
		{"double with a length", "9208fffffffffffffa24", -1.5, ""},
		{"double with zeros before", "92090000000000000007d0", 2.0, ""},
		{"double of 9 bytes", "9209010000000000000000", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"double, 8 spilt, cut", "82fffffa24", nil, "binrpc: record at byte 0 of the body: more data needed"},
		{"string without a byte", "01", "", ""},
		{"string with a length of none", "9100", "", ""},
		{"string without its zero", "4161626358", "abcX", ""},
		{"string with a zero inside", "31610000", "a", ""},
		{"string too long", "9105616263", nil, "binrpc: record at byte 0 of the body: more data needed"},
		{"length cut", "b10001", nil, "binrpc: record at byte 0 of the body: more data needed"},
		{"length of 7 bytes", "f1ffffffffffffff61", nil, "binrpc: record at byte 0 of the body: more data needed"},
		{"second record bad", "100507", nil, "binrpc: record at byte 2 of the body: record doesn't match type"},
		{"end of a struct alone", "83", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"end of an array alone", "84", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"struct with a size", "1361", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"struct ended as an array", "03256b0010018483", nil, "binrpc: record at byte 6 of the body: bad record"},
		{"struct not ended", "03256b00217600", nil, "binrpc: record at byte 7 of the body: end of packet encountered"},
		{"array not ended", "041001", nil, "binrpc: record at byte 3 of the body: end of packet encountered"},
		{"name alone", "256b00", nil, "binrpc: record at byte 0 of the body: bad record"},
		{"name without a value", "03256b0083", nil, "binrpc: record at byte 4 of the body: bad record"},
		{"name too long", "03f56b", nil, "binrpc: record at byte 1 of the body: more data needed"},
		{"names and none", "03 256b00 1001 1002 83", rpc.Struct{{Name: "k", Value: int64(1)}, {Value: int64(2)}}, ""},
		{"empty names", "03 1500 1001 1500 1002 83", rpc.List{int64(1), int64(2)}, ""},
		{"array in a struct", "03 256100 0421760084 83", rpc.Struct{{Name: "a", Value: rpc.List{"v"}}}, ""},
		{"unknown type", "0f", nil, "binrpc: record at byte 0 of the body: record doesn't match type"},
		{"as deep as allowed", deep(32), nil, ""},
		{"too deep", deep(33), nil, "binrpc: record at byte 32 of the body: structs and arrays more than 32 deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rep binrpc.Reply
			err := rep.Decode(packet(t, 1, tt.body))
			if got := fmt.Sprint(err); err == nil && tt.err != "" || err != nil && got != tt.err {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if _, ok := errors.AsType[*binrpc.RecordError](err); ok != (tt.err != "") {
				t.Errorf("got a %T, want a *RecordError", err)
			}
			if tt.want != nil && !reflect.DeepEqual(rep.Value, tt.want) {
				t.Errorf("got %#v, want %#v", rep.Value, tt.want)
			}
			if !bytes.Equal(rep.Body, unhex(t, tt.body)) || rep.Cookie != 0x11 {
				t.Errorf("got body %x, cookie %x, want what came", rep.Body, rep.Cookie)
			}
		})
	}
}

// What kamcmd was shown by a server of fixed replies, read by our client.
func TestDecodePrinted(t *testing.T) {
	want := map[string]any{
		"array":             rpc.List{int64(1), "x"},
		"array_in_struct":   rpc.Struct{{Name: "a", Value: rpc.List{"v"}}}, // kamcmd: bad record
		"bad_end":           errors.New("binrpc: record at byte 7 of the body: end of packet encountered"),
		"bytes":             []byte("ab\n"),
		"double":            rpc.List{1.5, 2.0, -1.5},
		"double_neg_own":    -1.5,
		"empty":             nil,
		"empty_string":      "",
		"fault":             rpc.Fault{Code: 404, Text: "no such thing"},
		"fault_codeless":    rpc.Fault{Text: "only text"},
		"fmt_short":         rpc.List{"a", "b", "c"},
		"ints":              rpc.List{int64(0), int64(-3), int64(70000)},
		"nested_struct":     rpc.Struct{{Name: "in", Value: rpc.Struct{{Name: "k", Value: "v"}}}, {Name: "z", Value: int64(1)}},
		"newline_in_string": "line1\nline2",
		"request_type":      binrpc.ErrCorrupted,
		"struct":            rpc.Struct{{Name: "k", Value: "v"}, {Name: "n", Value: int64(5)}},
		"struct_in_array":   rpc.List{rpc.Struct{{Name: "k", Value: "v"}}, rpc.Struct{{Name: "k", Value: "w"}}},
		"two_strings":       rpc.List{"a", "b"},
		"unterminated":      "abcX", // kamcmd drops the last byte, whatever it is
	}
	seen := 0
	for _, r := range recorded(t) {
		name, ok := strings.CutPrefix(r.name, "kamcmd_print_")
		if !ok {
			continue
		}
		seen++
		t.Run(name, func(t *testing.T) {
			var rep binrpc.Reply
			var got any
			switch err := rep.Decode(r.reply); {
			case err != nil:
				got = err
			case rep.Fault != nil:
				got = *rep.Fault
			default:
				got = rep.Value
			}
			w, known := want[name]
			if fmt.Sprintf("%T %#v", got, got) != fmt.Sprintf("%T %#v", w, w) || !known {
				if e, ok := got.(error); !ok || fmt.Sprint(w) != e.Error() {
					t.Errorf("got %#v, want %#v", got, w)
				}
			}
		})
	}
	if seen != len(want) {
		t.Errorf("got %d recordings, want %d", seen, len(want))
	}
}

func TestSplit(t *testing.T) {
	one, err := binrpc.Request{Cookie: 0x11223344, Method: "core.version"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range one {
		if n, err := binrpc.Split(one[:i], binrpc.MaxPacket); n != 0 || err != nil {
			t.Errorf("%d bytes: got %d, %v; want 0, more are needed", i, n, err)
		}
	}
	if n, err := binrpc.Split(append(one, one...), binrpc.MaxPacket); n != len(one) || err != nil {
		t.Errorf("two packets: got %d, %v; want %d", n, err, len(one))
	}
	if _, err := binrpc.Split(one, len(one)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	_, err = binrpc.Split(one[:10], len(one)-1)
	if e, ok := errors.AsType[*binrpc.SizeError](err); !ok || *e != (binrpc.SizeError{Size: len(one), Max: len(one) - 1}) {
		t.Errorf("over the limit: got %v", err)
	}
	for _, bad := range []string{"b1031911", "a2031911", "a1231911", "a1f31911", "00000000"} {
		if n, err := binrpc.Split(unhex(t, bad), binrpc.MaxPacket); n != 0 || !errors.Is(err, binrpc.ErrCorrupted) {
			t.Errorf("%s: got %d, %v; want %v", bad, n, err, binrpc.ErrCorrupted)
		}
	}
}

func TestDecodeRequest(t *testing.T) {
	many := strings.Repeat("00", 5000)
	tests := []struct {
		name   string
		body   string
		method string
		params []any
		err    string
	}{
		{"no parameter", "316d2e00", "m.", nil, ""},
		{"parameters", "316d2e00 217800 1005 2205dc", "m.", []any{"x", int64(5), 1.5}, ""},
		{"struct and array", "316d2e00 03 256100 1001 83 04 84", "m.", []any{rpc.Struct{{Name: "a", Value: int64(1)}}, rpc.List{}}, ""},
		{"up to the first bad one", "316d2e00 217800 0f 217900", "m.", []any{"x"}, ""},
		{"struct not ended", "316d2e00 03 256100 1001", "m.", nil, ""},
		{"null text is text", "316d2e00 91 0e 3c6e756c6c20737472696e673e 00", "m.", []any{"<null string>"}, ""},
		{"too many", "316d2e00" + many, "m.", nil, ""},
		{"empty", "", "", nil, "binrpc: record at byte 0 of the body: end of packet encountered"},
		{"not a string", "1005", "", nil, "binrpc: record at byte 0 of the body: record doesn't match type"},
		{"cut", "3161", "", nil, "binrpc: record at byte 0 of the body: more data needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var req binrpc.Request
			err := req.Decode(append(packet(t, 0, tt.body), "surplus"...))
			if got := fmt.Sprint(err); err == nil && tt.err != "" || err != nil && got != tt.err {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if tt.name == "too many" {
				if len(req.Params) != 4095 { // and the method
					t.Errorf("got %d parameters, want 4095", len(req.Params))
				}
				return
			}
			if req.Method != tt.method || !reflect.DeepEqual(req.Params, tt.params) || req.Cookie != 0x11 {
				t.Errorf("got %+v, want %s %#v", req, tt.method, tt.params)
			}
		})
	}
	var req binrpc.Request
	if err := req.Decode(packet(t, 1, "316d2e00")); !errors.Is(err, binrpc.ErrCorrupted) || req.Cookie != 0x11 {
		t.Errorf("a reply: got %v, cookie %x; want %v and the cookie", err, req.Cookie, binrpc.ErrCorrupted)
	}
	if err := req.Decode(packet(t, 0, "316d2e00")[:7]); !errors.Is(err, binrpc.ErrTruncated) {
		t.Errorf("a part: got %v, want %v", err, binrpc.ErrTruncated)
	}
	if err := req.Decode(nil); !errors.Is(err, binrpc.ErrTruncated) {
		t.Errorf("nothing: got %v, want %v", err, binrpc.ErrTruncated)
	}
}

func TestAppendErrors(t *testing.T) {
	dst := []byte("before")
	bad := rpc.Struct{{Name: "a", Value: rpc.List{5}}}
	for _, v := range []any{5, bad, rpc.List{bad}} {
		got, err := binrpc.Reply{Value: v}.Append(dst)
		if _, ok := errors.AsType[*binrpc.TypeError](err); !ok || string(got) != "before" {
			t.Errorf("reply of %v: got %q, %v; want a TypeError and nothing written", v, got, err)
		}
		got, err = binrpc.Request{Params: []any{v}}.Append(dst)
		if _, ok := errors.AsType[*binrpc.TypeError](err); !ok || string(got) != "before" {
			t.Errorf("request of %v: got %q, %v; want a TypeError and nothing written", v, got, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	reg := rpc.NewRegistry()
	methods := map[string]rpc.Handler{
		"long":    func(context.Context, *rpc.Call) (any, error) { return strings.Repeat("x", 2000), nil },
		"fault":   func(context.Context, *rpc.Call) (any, error) { return nil, rpc.Faultf(1<<40, "%0300d", 0) },
		"error":   func(context.Context, *rpc.Call) (any, error) { return nil, errors.New("secret") },
		"forward": func(context.Context, *rpc.Call) (any, error) { return rpc.Forwarded{Body: []byte{0x90, 1, 5}}, nil },
		"peer":    func(_ context.Context, c *rpc.Call) (any, error) { return c.Peer.String(), nil },
	}
	for name, h := range methods {
		if err := reg.Register(rpc.Method{Name: name, Handler: h}); err != nil {
			t.Fatal(err)
		}
	}
	srv := binrpc.Server{Registry: reg, MaxReply: 1000}
	tests := []struct {
		method string
		fault  rpc.Fault
		body   []byte
	}{
		{method: "long", fault: rpc.Fault{Code: 500, Text: "reply too big: 2012 bytes, at most 1000"}},
		{method: "fault", fault: rpc.Fault{Code: math.MaxInt32, Text: strings.Repeat("0", 255)}},
		{method: "error", fault: rpc.Fault{Code: 500, Text: "Internal Server Error"}},
		{method: "no.such", fault: rpc.Fault{Code: 500, Text: "command no.such not found"}},
		{method: "forward", body: []byte{0x90, 1, 5}},
		{method: "peer", body: append([]byte{0x71}, "unix:x\x00"...)},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			in, err := binrpc.Request{Cookie: 0x44332211, Method: tt.method}.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			out, n, err := srv.Answer(t.Context(), rpc.NewPeer("unix", "x"), []byte("before"), append(in, "next"...))
			if n != len(in) || err != nil || !bytes.HasPrefix(out, []byte("before")) {
				t.Fatalf("got %q, %d, %v; want %d bytes taken", out, n, err, len(in))
			}
			var rep binrpc.Reply
			if err := rep.Decode(out[len("before"):]); err != nil || rep.Cookie != 0x44332211 {
				t.Fatalf("got %v, cookie %x", err, rep.Cookie)
			}
			if tt.body != nil && !bytes.Equal(rep.Body, tt.body) {
				t.Errorf("got %x, want %x", rep.Body, tt.body)
			}
			if tt.body == nil && (rep.Fault == nil || *rep.Fault != tt.fault) {
				t.Errorf("got %v, want %v", rep.Fault, &tt.fault)
			}
		})
	}
}

func TestAllocs(t *testing.T) {
	in, err := binrpc.Request{Cookie: 1, Method: "core.uptime"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	rep := binrpc.Reply{Cookie: 1, Value: rpc.Struct{{Name: "now", Value: "x"}, {Name: "uptime", Value: int64(7)}}}
	buf := make([]byte, 0, 100)
	tests := []struct {
		name string
		want float64
		f    func()
	}{
		{"split", 0, func() { _, _ = binrpc.Split(in, binrpc.MaxPacket) }},
		{"append", 0, func() { _, _ = rep.Append(buf) }},
		{"decode", 1, func() { _ = new(binrpc.Request).Decode(in) }}, // the method's name
	}
	for _, tt := range tests {
		if got := testing.AllocsPerRun(100, tt.f); got > tt.want {
			t.Errorf("%s: got %v allocations, want %v", tt.name, got, tt.want)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	reg := rpc.NewRegistry()
	for _, m := range []rpc.Method{
		{Name: "siptrace.status", Handler: status("Enabled")},
		{Name: "core.uptime", Handler: func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{{Name: "now", Value: "Sat Nov 21 05:23:34 2026"}, {Name: "up_since", Value: "Sat Nov 21 05:23:30 2026"}, {Name: "uptime", Value: int64(4)}}, nil
		}},
	} {
		if err := reg.Register(m); err != nil {
			b.Fatal(err)
		}
	}
	srv := binrpc.Server{Registry: reg}
	for _, r := range recorded(b) {
		if r.name != "kamcmd_siptrace_status_on" && r.name != "kamcmd_core_uptime" && r.name != "kamcmd_listmethods" {
			continue
		}
		b.Run(r.name, func(b *testing.B) {
			peer := rpc.NewPeer("unix", "")
			var out []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(r.request)))
			for b.Loop() {
				var err error
				if out, _, err = srv.Answer(b.Context(), peer, out[:0], r.request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
