package hep

import (
	"errors"
	"fmt"
)

// What can be wrong with a packet, for errors.Is. [Cause] gives the name of each
// for a counter.
var (
	ErrTruncated error = &cause{"hep_truncated", "truncated"}     // ends before it should
	ErrVersion   error = &cause{"hep_bad_version", "bad version"} // not HEP, or not a HEP to be used here
	ErrLength    error = &cause{"hep_bad_length", "bad length"}   // length in the header can't be
	ErrFamily    error = &cause{"hep_bad_family", "bad family"}   // neither IPv4 nor IPv6
	ErrChunk     error = &cause{"hep_bad_chunk", "bad chunk"}     // shorter than its header, or wrong size for its type
	ErrInflate   error = &cause{"hep_inflate", "bad compression"} // compressed payload is damaged
	ErrTooLarge  error = &cause{"hep_too_large", "too large"}     // over MaxPacket, or over MaxInflated
	ErrTrailing  error = &cause{"hep_trailing", "trailing bytes"} // bytes after the end of a HEP3 packet
	ErrNoAddress error = &cause{"hep_no_address", "no address"}   // HEP1 and HEP2 can't do without
)

type cause struct{ name, text string }

func (c *cause) Error() string { return "hep: " + c.text }

// Cause returns a short name of what is wrong, fit for a counter's label and
// never changed: "hep_truncated", "hep_bad_version", "hep_bad_length",
// "hep_bad_family", "hep_bad_chunk", "hep_inflate", "hep_too_large",
// "hep_trailing", "hep_no_address". It is "" if err doesn't come from here.
func Cause(err error) string {
	if c, ok := errors.AsType[*cause](err); ok {
		return c.name
	}
	return ""
}

// Error says what is wrong with a packet and where.
type Error struct {
	Err     error // ErrTruncated, ...
	Version int   // 1, 2, 3; 0 = not known
	// Offset is where the chunk starts in the packet, Vendor and Chunk what it
	// is. Offset 0: it is the packet or its header.
	Offset        int
	Vendor, Chunk uint16
	// Got is what was found, Want what should have been, in bytes. ErrFamily: Got
	// is the family; ErrVersion: the version, or the first byte that isn't HEP.
	Got, Want int
	Reason    error // ErrInflate: what the decompressor said
}

func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string {
	place := "packet"
	switch {
	case e.Offset > 0 && e.Vendor != 0:
		place = fmt.Sprintf("vendor 0x%04x chunk 0x%04x at %d", e.Vendor, e.Chunk, e.Offset)
	case e.Offset > 0:
		place = fmt.Sprintf("chunk 0x%04x at %d", e.Chunk, e.Offset)
	case e.Version > 0:
		place = fmt.Sprintf("version %d packet", e.Version)
	}
	return "hep: " + place + ": " + e.detail()
}

func (e *Error) detail() string {
	is := func(sentinel error) bool { return errors.Is(e.Err, sentinel) }
	switch {
	case is(ErrTruncated):
		return fmt.Sprintf("length %d, have %d", e.Want, e.Got)
	case is(ErrVersion):
		if e.Version != 0 {
			return "no length, can't be found in a stream"
		}
		return fmt.Sprintf("neither HEP1, HEP2 nor HEP3 (0x%02x)", e.Got)
	case is(ErrChunk):
		if e.Want == 0 {
			return "has a field of its own in Packet"
		}
	case is(ErrFamily):
		return fmt.Sprintf("address family %d, want %d or %d", e.Got, familyIPv4, familyIPv6)
	case is(ErrTooLarge):
		return fmt.Sprintf("%d bytes, at most %d", e.Got, e.Want)
	case is(ErrTrailing):
		return fmt.Sprintf("%d bytes, length %d", e.Got, e.Want)
	case is(ErrInflate):
		return fmt.Sprintf("inflating %d bytes: %v", e.Got, e.Reason)
	case is(ErrNoAddress):
		return "source or destination without address"
	}
	return fmt.Sprintf("length %d, want %d", e.Got, e.Want)
}
