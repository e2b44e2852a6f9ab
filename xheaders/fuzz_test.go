package xheaders

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// FuzzMessage: any message. Nothing panics; Cut leaves nothing to read and is
// done at once; a set that was read can be written and read again.
func FuzzMessage(f *testing.F) {
	for _, r := range load(f, "odd.jsonl") {
		f.Add([]byte(r.In))
	}
	for _, r := range load(f, "sent.jsonl") {
		f.Add([]byte(r.Sent))
	}
	f.Add([]byte("\r\nA\nx-siptrace-dir :\n in\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		in := bytes.Clone(msg)
		h := whole()
		err := Read(msg, &h)
		plain := Cut(nil, msg)
		if !bytes.Equal(msg, in) {
			t.Fatal("message changed")
		}
		if again := Cut(nil, plain); !bytes.Equal(again, plain) {
			t.Fatalf("second cut %q, first %q", again, plain)
		}
		if errors.Is(err, ErrNone) && !bytes.Equal(plain, msg) {
			t.Fatalf("nothing read, but cut to %q", plain)
		}
		var none Headers
		if e := Read(plain, &none); !errors.Is(e, ErrNone) {
			t.Fatalf("after cut: %v, %+v", e, none)
		}
		if err != nil {
			if !reflect.DeepEqual(h, Headers{}) {
				t.Fatalf("left over after %v: %+v", err, h)
			}
			h = whole()
		}
		if !h.HasTime { // the caller fills in what the sender did not know
			h.HasTime, h.Sec = true, 1700000000
		}
		if len(h.Method) == 0 {
			h.Method = []byte("INVITE")
		}
		roundTrip(t, plain, h)
	})
}

// FuzzHeaders: any values. What Append writes, Read gives back; what it refuses
// leaves no trace.
func FuzzHeaders(f *testing.F) {
	f.Add("udp:192.0.2.10:5060", "udp:[2001:db8::1]:5060", "INVITE", "in", int64(1700000000), uint32(3865))
	f.Add("hello", "any:255.255.255.255:5060", "\xff\x00", "out", int64(MaxSec), uint32(MaxUsec))
	f.Add("a\r\nb", "", "A B", "IN", int64(-1), uint32(0))
	f.Fuzz(func(t *testing.T, from, to, method, dir string, sec int64, usec uint32) {
		roundTrip(t, []byte(start+body), Headers{
			FromIP: []byte(from), ToIP: []byte(to), Method: []byte(method), Dir: dir,
			HasTime: true, Sec: sec, Usec: usec,
		})
	})
}

// roundTrip marks plain, which has no headers of ours, with h.
func roundTrip(t *testing.T, plain []byte, h Headers) {
	t.Helper()
	marked, err := Append(nil, plain, &h)
	if err != nil {
		var m *MalformedError
		if !errors.As(err, &m) || marked != nil {
			t.Fatalf("append: %q, %v", marked, err)
		}
		return
	}
	var got Headers
	if err := Read(marked, &got); err != nil || !reflect.DeepEqual(got, h) {
		t.Fatalf("read %+v, %v, want %+v", got, err, h)
	}
	if back := Cut(nil, marked); !bytes.Equal(back, plain) {
		t.Fatalf("cut %q, want %q", back, plain)
	}
}
