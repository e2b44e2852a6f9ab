package siptrace

import (
	"fmt"
	"reflect"
	"testing"
)

// fill sets every field below v to something of its own, and fails for a kind
// that CloneInto can't be known to copy.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fill(t, f, n)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(fmt.Appendf(nil, "bytes %d", *n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(*n))
	default:
		t.Fatalf("a field of kind %s: say here how it is filled, and whether CloneInto copies it", v.Kind())
	}
}

// spoil changes all that slices below v have.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			spoil(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
			if v.Index(i).CanSet() {
				v.Index(i).SetZero()
			}
		}
	}
}

// A copy has every field of a record, and shares no memory with it.
func TestCloneInto(t *testing.T) {
	var n, again int
	var r, want Record
	fill(t, reflect.ValueOf(&r).Elem(), &n)
	fill(t, reflect.ValueOf(&want).Elem(), &again)
	size := r.Size()
	mem := make([]byte, 4, 4+size)
	var c Record
	r.CloneInto(&c, mem)
	spoil(reflect.ValueOf(&r).Elem())
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	mem = mem[:cap(mem)]
	clear(mem)
	if c.Size() != size || len(c.Origin) == 0 || c.Origin[0] != 0 || len(c.Users[1]) == 0 || c.Users[1][0] != 0 {
		t.Errorf("Size is %d bytes, but the copy is not all in memory of that size", size)
	}
	if c := new(Record).Clone(); !reflect.DeepEqual(c, Record{}) {
		t.Errorf("of nothing: got %+v", c)
	}
}
