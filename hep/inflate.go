package hep

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
)

// MaxInflated is the most that a compressed payload may become, in bytes.
const MaxInflated = 1 << 20

// inflater is what inflating reuses from packet to packet.
type inflater struct {
	in    bytes.Reader
	zlib  io.Reader // also a zlib.Resetter; nil before the first use
	gzip  gzip.Reader
	limit io.LimitedReader
	out   bytes.Buffer
}

// inflate replaces the payload, which is the value of the chunk at offset at.
// The specification says "gzip/inflate"; agents send zlib's format (RFC 1950)
// or gzip's (RFC 1952), told apart by the first two bytes.
func (p *Packet) inflate(at int) error {
	if p.inflater == nil {
		p.inflater = &inflater{}
	}
	f := p.inflater
	f.in.Reset(p.Payload)
	f.out.Reset()
	r, err := f.open(p.Payload)
	if err == nil {
		f.limit = io.LimitedReader{R: r, N: MaxInflated + 1}
		_, err = f.out.ReadFrom(&f.limit)
	}
	if err != nil {
		return &Error{
			Err: ErrInflate, Version: 3, Offset: at, Chunk: chunkCompressed,
			Got: len(p.Payload), Reason: err,
		}
	}
	if f.out.Len() > MaxInflated {
		return &Error{
			Err: ErrTooLarge, Version: 3, Offset: at, Chunk: chunkCompressed,
			Got: f.out.Len(), Want: MaxInflated,
		}
	}
	p.Payload = f.out.Bytes()
	return nil
}

func (f *inflater) open(b []byte) (io.Reader, error) {
	if len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b {
		return &f.gzip, f.gzip.Reset(&f.in)
	}
	if z, ok := f.zlib.(zlib.Resetter); ok {
		return f.zlib, z.Reset(&f.in, nil)
	}
	z, err := zlib.NewReader(&f.in)
	if err == nil {
		f.zlib = z
	}
	return z, err
}
