package jsonrpc_test

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

// changes reports whether v holds what JSON can't say: such changes when it is
// written for any reader.
func changes(v any) bool {
	switch v := v.(type) {
	case string:
		return !utf8.ValidString(v)
	case float64:
		return math.IsInf(v, 0) || v == math.Trunc(v) // 1.0 is written as 1
	case rpc.List:
		return slices.ContainsFunc(v, changes)
	case rpc.Struct:
		return v.Repeats() || slices.ContainsFunc(v, func(m rpc.Member) bool { return changes(m.Name) || changes(m.Value) })
	}
	return false
}

func FuzzAnswer(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add([]byte(r.Request), false, r.Compact)
		f.Add([]byte(r.Request), true, r.Compact)
	}
	f.Add([]byte(`[{"jsonrpc":"2.0","method":"echo","params":{"a":[1.5,"\u00e9"]},"id":1e400},1]`), true, true)
	f.Fuzz(func(t *testing.T, doc []byte, strict, compact bool) {
		srv := jsonrpc.Server{Strict: strict, Compact: compact, Registry: rpc.NewRegistry()}
		a := srv.Answer(t.Context(), rpc.NewPeer("test", ""), doc)
		if a.Body != nil && !json.Valid(a.Body) {
			t.Fatalf("answer %q is not JSON", a.Body)
		}
		if strict && a.Body == nil && a.Status != 204 {
			t.Fatal("no answer")
		}
		req, err := srv.Parse(doc)
		if err != nil || req.Method == "" || changes(rpc.List(req.Params)) || changes(req.Method) || changes(req.ReplyName) {
			return
		}
		enc, err := req.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(enc) > jsonrpc.MaxDocument { // control characters grow
			return
		}
		again, err := srv.Parse(enc)
		if err != nil {
			t.Fatalf("%v in %q", err, enc)
		}
		if again.Method != req.Method || again.ReplyName != req.ReplyName || len(again.Params)+len(req.Params) > 0 && !reflect.DeepEqual(again.Params, req.Params) {
			t.Fatalf("got %#v, want %#v", again, req)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add([]byte(r.Reply))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var rep jsonrpc.Reply
		if rep.Decode(doc) != nil || rep.Fault != nil || changes(rep.Value) {
			return
		}
		enc, err := jsonrpc.Request{Method: "m", Params: []any{rep.Value}}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(enc) > jsonrpc.MaxDocument {
			return
		}
		req, err := jsonrpc.Server{}.Parse(enc)
		if err != nil || len(req.Params) != 1 || !reflect.DeepEqual(req.Params[0], rep.Value) {
			t.Fatalf("got %#v, %v; want %#v", req, err, rep.Value)
		}
	})
}

// Whatever came, and however it was cut: no document is too long, nothing is kept
// beyond that, and after a pause a good one is found.
func FuzzFramer(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add([]byte(r.Request), byte(9))
	}
	f.Add([]byte(`{"a":"o"n"}`+"\n"+`{"jsonrpc":"2.0"}`), byte(1))
	f.Add([]byte(strings.Repeat("x", 9000)), byte(200))
	f.Fuzz(func(t *testing.T, in []byte, size byte) {
		frame := func(step int) (docs []string, dropped int) {
			var fr jsonrpc.Framer
			for rest := in; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				fr.Write(rest[:min(step, len(rest))])
				for doc := fr.Next(); doc != nil; doc = fr.Next() {
					if len(doc) > jsonrpc.MaxFIFODocument {
						t.Fatalf("document of %d bytes", len(doc))
					}
					docs = append(docs, string(doc))
				}
			}
			if n := fr.Pause(); n > jsonrpc.MaxFIFODocument+256 {
				t.Fatalf("%d bytes were kept", n)
			}
			const good = `{"jsonrpc":"2.0"}`
			fr.Write([]byte(good))
			if got := string(fr.Next()); got != good {
				t.Fatalf("after a pause: got %q", got)
			}
			return docs, fr.Dropped
		}
		docs, dropped := frame(len(in) + 1)
		again, droppedAgain := frame(int(size) + 1)
		if !slices.Equal(docs, again) || dropped != droppedAgain {
			t.Fatalf("got %q and %d dropped, in pieces %q and %d", docs, dropped, again, droppedAgain)
		}
	})
}
