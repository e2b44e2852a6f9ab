package rpc

import (
	"errors"
	"fmt"
)

// ErrUnknownMethod is what [Registry.Call] returns for a name that neither the
// registry nor its Unknown hook answers. Each protocol has its own text for it.
var ErrUnknownMethod = errors.New("rpc: unknown method")

// Fault is an error that is told to the caller: Kamailio's codes are those of
// SIP and HTTP, 400 for what the caller did wrong and 500 for most else.
type Fault struct {
	Code int
	Text string
}

// Faultf returns a [*Fault] with a formatted text.
func Faultf(code int, format string, args ...any) *Fault {
	return &Fault{Code: code, Text: fmt.Sprintf(format, args...)}
}

func (f *Fault) Error() string { return fmt.Sprintf("%d %s", f.Code, f.Text) }

// ErrInternal is what the caller is told when a handler failed with an error
// that is not a Fault: that may hold paths, addresses and passwords.
var ErrInternal = &Fault{Code: 500, Text: "Internal Server Error"}

// AsFault returns what the caller is told of an error: the Fault in it or
// [ErrInternal], and nil for nil. [ErrUnknownMethod] is for the codec to tell.
func AsFault(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok && f != nil {
		return f
	}
	return ErrInternal
}

// PanicError is what the OnCall hook is given when a handler panicked. The
// caller is answered as for any error that is not a [*Fault].
type PanicError struct {
	Method string
	Value  any
	Stack  []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("rpc: %s panicked: %v", e.Method, e.Value)
}
