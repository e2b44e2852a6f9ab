package binrpc_test

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
)

// hasLarge reports whether v holds a double of 2^51 thousandths or more: such
// can't tell neighbours apart, and near 2^63 they are written as a string.
func hasLarge(v any) bool {
	switch v := v.(type) {
	case float64:
		return math.Abs(v) >= 1<<41
	case rpc.List:
		return slices.ContainsFunc(v, hasLarge)
	case rpc.Struct:
		return slices.ContainsFunc(v, func(m rpc.Member) bool { return hasLarge(m.Value) })
	}
	return false
}

// bare takes the element out of a list of one, and nil for an empty list: a
// reply doesn't tell an array of one record from the record.
func bare(v any) any {
	for {
		list, ok := v.(rpc.List)
		switch {
		case !ok || len(list) > 1:
			return v
		case len(list) == 0:
			return nil
		}
		v = list[0]
	}
}

func FuzzRequest(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add(r.request)
	}
	srv := binrpc.Server{Registry: rpc.NewRegistry()}
	f.Fuzz(func(t *testing.T, in []byte) {
		n, splitErr := binrpc.Split(in, binrpc.MaxPacket)
		if n < 0 || n > len(in) {
			t.Fatalf("split at %d of %d bytes", n, len(in))
		}
		out, taken, err := srv.Answer(t.Context(), rpc.NewPeer("test", ""), nil, in)
		var rep binrpc.Reply
		switch {
		case splitErr == nil && n == 0 && !errors.Is(err, binrpc.ErrCorrupted) && (len(out) > 0 || taken > 0):
			t.Fatalf("a part was answered: %x, %d, %v", out, taken, err)
		case len(out) > 0 && rep.Decode(out) != nil:
			t.Fatalf("answer %x can't be read", out)
		case err == nil && taken != n:
			t.Fatalf("%d bytes taken, want %d", taken, n)
		}
		var req, again binrpc.Request
		if req.Decode(in) != nil {
			return
		}
		enc, err := req.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Decode(enc); err != nil {
			t.Fatal(err)
		}
		if !hasLarge(rpc.List(req.Params)) && !reflect.DeepEqual(req, again) {
			t.Fatalf("got %#v, want %#v", again, req)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add(r.reply)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var rep, again binrpc.Reply
		if rep.Decode(in) != nil {
			return
		}
		enc, err := rep.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Decode(enc); err != nil {
			t.Fatal(err)
		}
		if rep.Fault != nil {
			if again.Fault == nil || again.Fault.Code != rep.Fault.Code || !strings.HasPrefix(rep.Fault.Text, again.Fault.Text) {
				t.Fatalf("got %v, want %v", again.Fault, rep.Fault)
			}
			return
		}
		if !hasLarge(rep.Value) && !reflect.DeepEqual(bare(again.Value), bare(rep.Value)) {
			t.Fatalf("got %#v, want %#v", again.Value, rep.Value)
		}
	})
}
