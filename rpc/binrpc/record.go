package binrpc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"siptraced/rpc"
)

// Types of records: bits 3-0 of a record's head.
//
//	| S 1 | size 3 | type 4 | length, size bytes, if S | value ... |
//
// S = 0: size is the length of the value. S = 1: size is the number of
// big-endian bytes of the length; none marks the end of a struct or an array.
const (
	typeInt    = 0
	typeString = 1 // with a closing zero byte
	typeDouble = 2 // thousandths
	typeStruct = 3
	typeArray  = 4
	typeName   = 5 // of a member, coded like a string
	typeBytes  = 6

	external  = 0x80            // S
	endStruct = external | 3    // 83
	endArray  = external | 4    // 84
	nullText  = "<null string>" // what Kamailio sends for a string it doesn't have
)

const (
	maxDepth        = 32
	maxParamRecords = 4096
	maxReplyRecords = 1 << 20
	maxFaultText    = 255 // ctl's buffer for it
)

// What can be wrong with a record. The texts are Kamailio's: a client sees them
// after "bad request method: ".
var (
	errEnd      = errors.New("end of packet encountered")
	errMoreData = errors.New("more data needed")
	errType     = errors.New("record doesn't match type")
	errRecord   = errors.New("bad record")
	errDepth    = fmt.Errorf("structs and arrays more than %d deep", maxDepth)
	errCount    = errors.New("too many records")
)

// RecordError tells which record can't be read.
type RecordError struct {
	Offset int   // in the body
	Err    error // says what is wrong
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("binrpc: record at byte %d of the body: %v", e.Offset, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// TypeError tells that a value is none of those that package rpc lists.
type TypeError struct{ Value any }

func (e *TypeError) Error() string { return fmt.Sprintf("binrpc: value of type %T", e.Value) }

// reader takes records from a body. Nothing that it returns aliases it.
type reader struct {
	b       []byte
	i       int
	depth   int
	left    int  // records that may still come
	nullNil bool // read nullText as nil
}

// head is a record's type and value. The value of a struct or an array is the
// records that follow.
type head struct {
	typ  byte
	end  bool
	data []byte
}

// next reads one record, length before type as ctl does.
func (r *reader) next() (head, error) {
	rest := r.b[r.i:]
	if len(rest) == 0 {
		return head{}, errEnd
	}
	if r.left--; r.left < 0 {
		return head{}, errCount
	}
	h, size := head{typ: rest[0] & 0x0F}, int(rest[0]>>4&7)
	pos, length := 1, uint64(size)
	switch {
	case h.typ == typeStruct || h.typ == typeArray:
		if size != 0 {
			return head{}, errRecord
		}
		h.end = rest[0]&external != 0
	case rest[0]&external == 0:
	case h.typ == typeDouble && size == 0:
		// A size of 8 has spilled into S: eight bytes and no length.
		length = 8
	default:
		if len(rest) < 1+size {
			return head{}, errMoreData
		}
		pos, length = 1+size, bigEndian(rest[1:1+size])
	}
	if length > uint64(len(rest)-pos) {
		return head{}, errMoreData
	}
	h.data = rest[pos : pos+int(length)]
	r.i += pos + int(length)
	return h, nil
}

// string reads a record that must be of that type: a method's or a member's name.
func (r *reader) string(typ byte) (string, error) {
	start := r.i
	h, err := r.next()
	if err == nil && h.typ != typ {
		err = errType
	}
	if err != nil {
		return "", &RecordError{Offset: start, Err: err}
	}
	return text(h.data), nil
}

// value reads one value with all that is in it.
func (r *reader) value() (v any, err error) {
	start := r.i
	h, err := r.next()
	switch {
	case err != nil:
	case h.end || h.typ == typeName:
		err = errRecord
	case h.typ == typeStruct || h.typ == typeArray:
		if r.depth++; r.depth > maxDepth {
			err = errDepth
			break
		}
		defer func() { r.depth-- }()
		if h.typ == typeStruct {
			return r.structure()
		}
		return r.array()
	default:
		v, err = r.scalar(h)
	}
	if err != nil {
		return nil, &RecordError{Offset: start, Err: err}
	}
	return v, nil
}

func (r *reader) scalar(h head) (any, error) {
	switch h.typ {
	case typeInt:
		b := bytes.TrimLeft(h.data, "\x00")
		if len(b) > 4 {
			return nil, errRecord
		}
		return int64(int32(bigEndian(b))), nil
	case typeString:
		s := text(h.data)
		if r.nullNil && s == nullText {
			return nil, nil
		}
		return s, nil
	case typeDouble:
		b := bytes.TrimLeft(h.data, "\x00")
		if len(b) > 8 {
			return nil, errRecord
		}
		return float64(int64(bigEndian(b))) / 1000, nil
	case typeBytes:
		return append([]byte{}, h.data...), nil
	}
	return nil, errType
}

func (r *reader) array() (any, error) {
	list := rpc.List{}
	for r.i >= len(r.b) || r.b[r.i] != endArray {
		v, err := r.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	r.i++
	return list, nil
}

// structure reads members until the end. Where none has a name it is how
// Kamailio sends an array within a struct.
func (r *reader) structure() (any, error) {
	s, named := rpc.Struct{}, false
	for r.i >= len(r.b) || r.b[r.i] != endStruct {
		var m rpc.Member
		var err error
		if r.i < len(r.b) && r.b[r.i]&0x0F == typeName {
			if m.Name, err = r.string(typeName); err != nil {
				return nil, err
			}
		}
		if m.Value, err = r.value(); err != nil {
			return nil, err
		}
		named = named || m.Name != ""
		s = append(s, m)
	}
	r.i++
	if named || len(s) == 0 {
		return s, nil
	}
	list := make(rpc.List, len(s))
	for i, m := range s {
		list[i] = m.Value
	}
	return list, nil
}

// text is a string up to its zero byte. Kamailio reads on where there is none.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// appendValue writes one value. Within a struct there are no arrays.
func appendValue(dst []byte, v any, inStruct bool) (_ []byte, err error) {
	switch v := v.(type) {
	case string:
		return appendText(dst, typeString, v), nil
	case int64:
		switch {
		case int64(int32(v)) == v:
			n := byteLen(uint64(uint32(v)))
			return appendBigEndian(append(dst, byte(n<<4|typeInt)), uint64(uint32(v)), n), nil
		case v > math.MaxInt64/1000 || v < math.MinInt64/1000:
			return appendText(dst, typeString, strconv.FormatInt(v, 10)), nil
		}
		return appendThousandths(dst, v*1000), nil
	case float64:
		return appendDouble(dst, v), nil
	case bool:
		if v {
			return append(dst, 1<<4|typeInt, 1), nil
		}
		return append(dst, typeInt), nil
	case nil:
		return appendText(dst, typeString, nullText), nil
	case []byte:
		return append(appendHead(dst, typeBytes, len(v)), v...), nil
	case rpc.Struct:
		dst = append(dst, typeStruct)
		for _, m := range v {
			if m.Name != "" {
				dst = appendText(dst, typeName, m.Name)
			}
			if dst, err = appendValue(dst, m.Value, true); err != nil {
				return dst, err
			}
		}
		return append(dst, endStruct), nil
	case rpc.List:
		start, end := byte(typeArray), byte(endArray)
		if inStruct {
			start, end = typeStruct, endStruct
		}
		dst = append(dst, start)
		for _, e := range v {
			if dst, err = appendValue(dst, e, inStruct); err != nil {
				return dst, err
			}
		}
		return append(dst, end), nil
	}
	return dst, &TypeError{Value: v}
}

// appendHead writes the head of a value of n bytes.
func appendHead(dst []byte, typ byte, n int) []byte {
	if n < 8 {
		return append(dst, byte(n)<<4|typ)
	}
	size := byteLen(uint64(n))
	return appendBigEndian(append(dst, external|byte(size)<<4|typ), uint64(n), size)
}

func appendText(dst []byte, typ byte, s string) []byte {
	dst = append(appendHead(dst, typ, len(s)+1), s...)
	return append(dst, 0)
}

func appendDouble(dst []byte, f float64) []byte {
	t := math.Round(f * 1000)
	if !(math.Abs(t) < 1<<63) {
		return appendText(dst, typeString, strconv.FormatFloat(f, 'g', -1, 64))
	}
	return appendThousandths(dst, int64(t))
}

// appendThousandths writes a double in as few bytes as it takes. Eight, and any
// negative number takes eight, spill into S as they do in Kamailio: head 82.
func appendThousandths(dst []byte, t int64) []byte {
	n := byteLen(uint64(t))
	return appendBigEndian(append(dst, byte(n<<4|typeDouble)), uint64(t), n)
}
