package binrpc

import (
	"errors"
	"fmt"
	"math/bits"
)

const (
	// MaxPacket is the size of ctl's buffer: the longest request, in bytes
	// with its header.
	MaxPacket = 65535
	// MaxReply is what kamcmd takes at most, in bytes with the header.
	MaxReply = 128 << 10

	maxHeader = 10
)

// kind is what a packet is.
type kind uint8

const (
	kindRequest kind = 0
	kindReply   kind = 1
	kindFault   kind = 3
)

// ErrCorrupted tells that the bytes are not a BINRPC packet, or one of another
// version, or not of the kind that was expected. A stream can't be read on.
var ErrCorrupted = errors.New("binrpc: corrupted packet")

// ErrTruncated tells that a packet is shorter than its header says.
var ErrTruncated = errors.New("binrpc: truncated packet")

// SizeError tells that a packet is longer than the reader takes.
type SizeError struct {
	Size, Max int // bytes, header included
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("binrpc: packet of %d bytes, at most %d", e.Size, e.Max)
}

// header is what comes before the body, big endian:
//
//	| magic 4 = A | version 4 = 1 | kind 4 | LL 2 | CC 2 | body length, LL+1 bytes | cookie, CC+1 bytes |
type header struct {
	kind   kind
	cookie uint32
	size   int // of the header itself
	body   int
}

// parse reads the header at the start of b. False with no error means that more
// bytes are needed. ctl looks at nothing before it has four.
func (h *header) parse(b []byte) (bool, error) {
	*h = header{}
	if len(b) < 4 {
		return false, nil
	}
	k := kind(b[1] >> 4)
	if b[0] != 0xA1 || k != kindRequest && k != kindReply && k != kindFault {
		return false, ErrCorrupted
	}
	lenEnd := 2 + int(b[1]>>2&3) + 1
	end := lenEnd + int(b[1]&3) + 1
	if len(b) < end {
		return false, nil
	}
	*h = header{kind: k, cookie: uint32(bigEndian(b[lenEnd:end])), size: end, body: int(bigEndian(b[2:lenEnd]))}
	return true, nil
}

// append writes the header with as few bytes as its numbers take.
func (h *header) append(dst []byte) []byte {
	lenBytes, cookieBytes := max(1, byteLen(uint64(h.body))), max(1, byteLen(uint64(h.cookie)))
	dst = append(dst, 0xA1, byte(h.kind)<<4|byte(lenBytes-1)<<2|byte(cookieBytes-1))
	dst = appendBigEndian(dst, uint64(h.body), lenBytes)
	return appendBigEndian(dst, uint64(h.cookie), cookieBytes)
}

// appendPacket writes a packet whose body is what the function appends.
func appendPacket(dst []byte, k kind, cookie uint32, body func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	var room [maxHeader]byte
	out, err := body(append(dst, room[:]...))
	if err != nil {
		return dst, err
	}
	h := header{kind: k, cookie: cookie, body: len(out) - start - maxHeader}
	head := h.append(room[:0])
	n := copy(out[start:], head)
	n += copy(out[start+n:], out[start+maxHeader:])
	return out[:start+n], nil
}

// Split returns the length of the first packet in buf, which is what came over
// a stream; 0 means that more bytes are needed. The error is [ErrCorrupted], or
// a [*SizeError] as soon as the header announces more than limit.
func Split(buf []byte, limit int) (int, error) {
	var h header
	if ok, err := h.parse(buf); !ok {
		return 0, err
	}
	n := h.size + h.body
	if n > limit {
		return 0, &SizeError{Size: n, Max: limit}
	}
	if len(buf) < n {
		return 0, nil
	}
	return n, nil
}

// bigEndian reads up to 8 bytes.
func bigEndian(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

func appendBigEndian(dst []byte, n uint64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

// byteLen is the number of bytes n takes: none for 0.
func byteLen(n uint64) int { return (bits.Len64(n) + 7) / 8 }
