package hep_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"testing"

	"siptraced/hep"
)

// deflate compresses n times "S" in a format.
func deflate(tb testing.TB, format string, n int) []byte {
	tb.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser = zlib.NewWriter(&buf)
	if format == "gzip" {
		w = gzip.NewWriter(&buf)
	}
	if _, err := w.Write(bytes.Repeat([]byte("S"), n)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func TestInflate(t *testing.T) {
	var p hep.Packet // one for all: state of one packet must not leak into the next
	for _, format := range []string{"zlib", "gzip", "zlib"} {
		for _, n := range []int{0, 1, 5000, hep.MaxInflated} {
			if err := p.Decode(hep3(chunk(0, 16, string(deflate(t, format, n))))); err != nil {
				t.Fatalf("%s of %d bytes: %v", format, n, err)
			}
			if !p.Compressed || p.Payload == nil || len(p.Payload) != n || bytes.Count(p.Payload, []byte("S")) != n {
				t.Errorf("%s of %d bytes: got %d, Compressed %v", format, n, len(p.Payload), p.Compressed)
			}
		}
		if err := p.Decode(hep3(chunk(0, 16, "damaged"))); !errors.Is(err, hep.ErrInflate) {
			t.Errorf("damaged: %v", err)
		}
		if err := p.Decode(hep3(chunk(0, 15, "plain"))); err != nil || p.Compressed || string(p.Payload) != "plain" {
			t.Errorf("plain after compressed: %q, %v", p.Payload, err)
		}
	}
}

func TestInflateBomb(t *testing.T) {
	for _, format := range []string{"zlib", "gzip"} {
		bomb := deflate(t, format, 8<<20)
		var p hep.Packet
		err := p.Decode(hep3(chunk(0, 16, string(bomb))))
		e, ok := errors.AsType[*hep.Error](err)
		if !ok || !errors.Is(err, hep.ErrTooLarge) || e.Want != hep.MaxInflated || e.Got != hep.MaxInflated+1 || e.Offset != 6 {
			t.Errorf("%s, %d bytes for 8 MiB: %v", format, len(bomb), err)
		}
	}
}

// The checksum at the end is checked.
func TestInflateDamaged(t *testing.T) {
	var p hep.Packet
	for _, format := range []string{"zlib", "gzip"} {
		good := deflate(t, format, 1000)
		for name, b := range map[string][]byte{
			"cut":      good[:len(good)-1],
			"checksum": append(bytes.Clone(good[:len(good)-6]), good[len(good)-6]^1, 0, 0, 0, 0, 0),
		} {
			if err := p.Decode(hep3(chunk(0, 16, string(b)))); !errors.Is(err, hep.ErrInflate) {
				t.Errorf("%s, %s: %v", format, name, err)
			}
		}
	}
}
