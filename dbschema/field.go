package dbschema

import "siptraced/compat/siptrace"

// Field is what a column is for.
type Field uint8

// The fields in the order of the current table, to fieldDirection; the last six
// are the form of OpenSIPS 2.1 and later, which has them in place of fieldFromIP
// and fieldToIP. A new column of the current table goes before fieldFromProto.
const (
	fieldTime Field = iota
	fieldTimeUS
	fieldCallID
	fieldTracedUser
	fieldMsg
	fieldMethod
	fieldStatus
	fieldFromIP
	fieldToIP
	fieldFromTag
	fieldToTag
	fieldDirection
	fieldFromProto
	fieldFromHost
	fieldFromPort
	fieldToProto
	fieldToHost
	fieldToPort
	numFields
)

// fieldNames are the names of the columns: Kamailio's first, then those of
// other forms.
var fieldNames = [numFields][]string{
	fieldTime:       {"time_stamp", "date"},
	fieldTimeUS:     {"time_us"},
	fieldCallID:     {"callid"},
	fieldTracedUser: {"traced_user", "trace_attrs"},
	fieldMsg:        {"msg"},
	fieldMethod:     {"method"},
	fieldStatus:     {"status"},
	fieldFromIP:     {"fromip"},
	fieldToIP:       {"toip"},
	fieldFromTag:    {"fromtag"},
	fieldToTag:      {"totag"},
	fieldDirection:  {"direction"},
	fieldFromProto:  {"from_proto"},
	fieldFromHost:   {"from_ip"},
	fieldFromPort:   {"from_port"},
	fieldToProto:    {"to_proto"},
	fieldToHost:     {"to_ip"},
	fieldToPort:     {"to_port"},
}

// String is the name of the column in Kamailio's table, or in OpenSIPS' for
// the fields that only it has.
func (f Field) String() string {
	if f < numFields {
		return fieldNames[f][0]
	}
	return "field?"
}

// optional reports whether a form of the table without the field exists.
func (f Field) optional() bool { return f == fieldTimeUS || f == fieldToTag }

// configured is the name that the *_column parameters give to the field; ""
// where there is no such parameter.
func configured(c siptrace.Columns, f Field) string {
	switch f {
	case fieldTime:
		return c.Date
	case fieldCallID:
		return c.CallID
	case fieldTracedUser:
		return c.TracedUser
	case fieldMsg:
		return c.Msg
	case fieldMethod:
		return c.Method
	case fieldStatus:
		return c.Status
	case fieldFromIP:
		return c.FromIP
	case fieldToIP:
		return c.ToIP
	case fieldFromTag:
		return c.FromTag
	case fieldToTag:
		return c.ToTag
	case fieldDirection:
		return c.Direction
	}
	return ""
}

// kind is the type of a column of the current form.
type kind uint8

const (
	kindTime  kind = iota // date and time, whole seconds, no time zone
	kindCount             // 0 or more
	kindText              // at most width characters
	kindLong              // a whole message
)

// layoutColumn is a column of the current form.
type layoutColumn struct {
	kind  kind
	width int    // characters
	index string // name of its index on MySQL, "" for none
}

// layout is the current form after id, by field and in the order of the fields:
// Kamailio's siptrace-create.sql from 5.5.2 to 6.1, table version 4.
var layout = [fieldFromProto]layoutColumn{
	fieldTime:       {kind: kindTime, index: "date_idx"},
	fieldTimeUS:     {kind: kindCount},
	fieldCallID:     {kind: kindText, width: 255, index: "callid_idx"},
	fieldTracedUser: {kind: kindText, width: 255, index: "traced_user_idx"},
	fieldMsg:        {kind: kindLong},
	fieldMethod:     {kind: kindText, width: 50},
	fieldStatus:     {kind: kindText, width: 255},
	fieldFromIP:     {kind: kindText, width: 64, index: "fromip_idx"},
	fieldToIP:       {kind: kindText, width: 64},
	fieldFromTag:    {kind: kindText, width: 128},
	fieldToTag:      {kind: kindText, width: 128},
	fieldDirection:  {kind: kindText, width: 4},
}

// indexOrder is the order in which Kamailio's script makes the indexes.
var indexOrder = [...]Field{fieldTracedUser, fieldTime, fieldFromIP, fieldCallID}
