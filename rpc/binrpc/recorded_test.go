package binrpc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
)

// recording is one exchange with the real server, or of kamcmd with a server of
// fixed replies.
type recording struct {
	name, server, transport, after string
	request, reply                 []byte
}

func recorded(tb testing.TB) []recording {
	tb.Helper()
	data, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all []recording
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		r := recording{name: f[0], server: f[1], transport: f[2], after: f[3], request: unhex(tb, f[4])}
		if f[5] != "-" {
			r.reply = unhex(tb, f[5])
		}
		all = append(all, r)
	}
	if len(all) < 100 {
		tb.Fatalf("%d recordings, want them all", len(all))
	}
	return all
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
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

// stub is a registry whose methods answer what the recorded reply holds.
func stub(t *testing.T, r recording) *rpc.Registry {
	t.Helper()
	var req binrpc.Request
	_ = req.Decode(r.request)
	var rep binrpc.Reply
	if len(r.reply) > 0 {
		if err := rep.Decode(r.reply); err != nil {
			t.Fatal(err)
		}
	}
	reg := rpc.NewRegistry()
	add := func(m rpc.Method) {
		if err := reg.Register(m); err != nil {
			t.Fatal(err)
		}
	}
	const help = "Get status or turn on/off siptrace. Parameters: on, off or check."
	state := "Enabled"
	if rep.Value == "Disabled" {
		state = "Disabled"
	}
	add(rpc.Method{Name: "siptrace.status", Help: help, Handler: status(state)})
	switch {
	case req.Method == "system.listMethods":
		reg.UnknownNames = func(context.Context) (names []string) {
			list, _ := rep.Value.(rpc.List)
			for _, name := range list {
				names = append(names, name.(string))
			}
			return names
		}
	case strings.HasPrefix(req.Method, "system."), req.Method == "siptrace.status", req.Method == "",
		rep.Fault != nil && strings.HasSuffix(rep.Fault.Text, " not found"):
	default:
		add(rpc.Method{Name: req.Method, Handler: func(context.Context, *rpc.Call) (any, error) {
			if rep.Fault != nil {
				return nil, rep.Fault
			}
			return rep.Value, nil
		}})
	}
	return reg
}

// The recorded request must give the recorded reply, byte for byte.
func TestRecorded(t *testing.T) {
	// Where we differ from ctl on purpose, and what comes instead.
	differ := map[string]string{
		// ctl reads past the end of the method's name, which has no zero byte.
		"raw_unterminated": "a1 33 28 11223344 2001f4 9123" + hex.EncodeToString([]byte("command siptrace.statusX not found\x00")),
	}
	for _, r := range recorded(t) {
		if r.server != "kamailio" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			want := r.reply
			if s, ok := differ[r.name]; ok {
				want = unhex(t, s)
			}
			srv := binrpc.Server{Registry: stub(t, r)}
			got, err := converse(t, srv, r)
			if !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			closed := err != nil
			switch {
			case r.name == "raw_huge_len": // ctl waits for 2 GiB, we needn't
				if e, ok := errors.AsType[*binrpc.SizeError](err); !ok || e.Size != 0x7fffffff+10 {
					t.Errorf("got %v, want a SizeError", err)
				}
			case r.name == "raw_half_close": // closed by the client's end of file
			case r.after != "-" && closed != (r.after == "closed"):
				t.Errorf("connection %s, but got error %v", r.after, err)
			}
		})
	}
}

// converse feeds a stream in two pieces, and a datagram at once.
func converse(t *testing.T, srv binrpc.Server, r recording) (out []byte, err error) {
	t.Helper()
	peer := rpc.NewPeer("test", "")
	if r.transport == "udp" || r.transport == "unix-datagram" {
		out, _, err = srv.Answer(t.Context(), peer, nil, r.request)
		return out, err
	}
	var in []byte
	for _, piece := range [][]byte{r.request[:len(r.request)/2], r.request[len(r.request)/2:]} {
		in = append(in, piece...)
		for len(in) > 0 {
			var n int
			out, n, err = srv.Answer(t.Context(), peer, out, in)
			in = in[n:]
			if n == 0 || err != nil {
				break
			}
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// A request of 70 kB is cut off, as the recorded one was: no reply.
func TestRecordedBigRequest(t *testing.T) {
	in, err := binrpc.Request{Cookie: 0x11223344, Method: "siptrace.status", Params: []any{strings.Repeat("x", 70000)}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, n, err := binrpc.Server{Registry: rpc.NewRegistry()}.Answer(t.Context(), rpc.NewPeer("test", ""), nil, in[:100])
	if e, ok := errors.AsType[*binrpc.SizeError](err); !ok || e.Size != len(in) || len(out) != 0 || n != 0 {
		t.Errorf("got %x, %d, %v; want a SizeError for %d bytes", out, n, err, len(in))
	}
}

// What kamcmd sent and what it was sent must come out the same when it is read
// and written again.
func TestRecordedRoundTrip(t *testing.T) {
	for _, r := range recorded(t) {
		if strings.HasPrefix(r.name, "raw_") {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			var req binrpc.Request
			if err := req.Decode(r.request); err != nil {
				t.Fatal(err)
			}
			if got, err := req.Append(nil); err != nil || !bytes.Equal(got, r.request) {
				t.Errorf("request: got %x, %v\nwant %x", got, err, r.request)
			}
			if r.server != "kamailio" || len(r.reply) == 0 {
				return
			}
			var rep binrpc.Reply
			if err := rep.Decode(r.reply); err != nil {
				t.Fatal(err)
			}
			if rep.Cookie != req.Cookie {
				t.Errorf("got cookie %x, want %x", rep.Cookie, req.Cookie)
			}
			if got, err := rep.Append(nil); err != nil || !bytes.Equal(got, r.reply) {
				t.Errorf("reply: got %x, %v\nwant %x", got, err, r.reply)
			}
			rep.Value = rpc.Forwarded{Body: rep.Body, Value: "unused"}
			if got, err := rep.Append(nil); err != nil || !bytes.Equal(got, r.reply) {
				t.Errorf("forwarded: got %x, %v\nwant %x", got, err, r.reply)
			}
		})
	}
}
