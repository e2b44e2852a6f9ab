package sipmsg

import (
	"errors"
	"fmt"
)

// ErrNotSIP is matched by errors.Is for every [*NotSIPError].
var ErrNotSIP = errors.New("sipmsg: not SIP")

// NotSIPError says that the first line is neither a SIP/2.0 request line nor a SIP/2.0 status line.
type NotSIPError struct {
	Offset int    // where the first line begins, after leading white space
	Size   int    // bytes of input
	Reason string // constant text
}

func (e *NotSIPError) Error() string {
	return fmt.Sprintf("sipmsg: not SIP: %s (first line at byte %d of %d)", e.Reason, e.Offset, e.Size)
}

// Is reports whether target is [ErrNotSIP].
func (e *NotSIPError) Is(target error) bool { return target == ErrNotSIP }

// LengthError says that a Content-Length on a stream cannot frame a message: nothing after it can be trusted.
type LengthError struct {
	Offset int    // of the value, from the start of the buffer
	Value  string // as written, at most 32 bytes of it
	Reason string // constant text
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("sipmsg: Content-Length %q at byte %d: %s", e.Value, e.Offset, e.Reason)
}

// SizeError says that a message on a stream is over a bound.
type SizeError struct {
	What string // "header section" or "message"
	Size int    // bytes that it has at least
	Max  int    // bytes allowed: MaxHeaders, MaxMessage
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("sipmsg: %s of at least %d bytes, at most %d", e.What, e.Size, e.Max)
}
