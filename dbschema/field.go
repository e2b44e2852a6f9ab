package dbschema

import "siptraced/compat/siptrace"

// Field is what a column is for.
type Field uint8

// The fields in the order of the current table; the last six are the form of
// OpenSIPS 2.1 and later, which has them in place of FieldFromIP and FieldToIP.
const (
	FieldTime Field = iota
	FieldTimeUS
	FieldCallID
	FieldTracedUser
	FieldMsg
	FieldMethod
	FieldStatus
	FieldFromIP
	FieldToIP
	FieldFromTag
	FieldToTag
	FieldDirection
	FieldFromProto
	FieldFromHost
	FieldFromPort
	FieldToProto
	FieldToHost
	FieldToPort
	NumFields
)

// fieldNames are the names of the columns: Kamailio's first, then those of
// other forms.
var fieldNames = [NumFields][]string{
	FieldTime:       {"time_stamp", "date"},
	FieldTimeUS:     {"time_us"},
	FieldCallID:     {"callid"},
	FieldTracedUser: {"traced_user", "trace_attrs"},
	FieldMsg:        {"msg"},
	FieldMethod:     {"method"},
	FieldStatus:     {"status"},
	FieldFromIP:     {"fromip"},
	FieldToIP:       {"toip"},
	FieldFromTag:    {"fromtag"},
	FieldToTag:      {"totag"},
	FieldDirection:  {"direction"},
	FieldFromProto:  {"from_proto"},
	FieldFromHost:   {"from_ip"},
	FieldFromPort:   {"from_port"},
	FieldToProto:    {"to_proto"},
	FieldToHost:     {"to_ip"},
	FieldToPort:     {"to_port"},
}

// String is the name of the column in Kamailio's table, or in OpenSIPS' for
// the fields that only it has.
func (f Field) String() string {
	if f < NumFields {
		return fieldNames[f][0]
	}
	return "field?"
}

// optional reports whether a form of the table without the field exists.
func (f Field) optional() bool { return f == FieldTimeUS || f == FieldToTag }

// configured is the name that the *_column parameters give to the field; ""
// where there is no such parameter.
func configured(c siptrace.Columns, f Field) string {
	switch f {
	case FieldTime:
		return c.Date
	case FieldCallID:
		return c.CallID
	case FieldTracedUser:
		return c.TracedUser
	case FieldMsg:
		return c.Msg
	case FieldMethod:
		return c.Method
	case FieldStatus:
		return c.Status
	case FieldFromIP:
		return c.FromIP
	case FieldToIP:
		return c.ToIP
	case FieldFromTag:
		return c.FromTag
	case FieldToTag:
		return c.ToTag
	case FieldDirection:
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
	field Field
	kind  kind
	width int    // characters
	index string // name of its index on MySQL, "" for none
}

// layout is the current form after id: Kamailio's siptrace-create.sql from
// 5.5.2 to 6.1, table version 4.
var layout = [...]layoutColumn{
	{field: FieldTime, kind: kindTime, index: "date_idx"},
	{field: FieldTimeUS, kind: kindCount},
	{field: FieldCallID, kind: kindText, width: 255, index: "callid_idx"},
	{field: FieldTracedUser, kind: kindText, width: 255, index: "traced_user_idx"},
	{field: FieldMsg, kind: kindLong},
	{field: FieldMethod, kind: kindText, width: 50},
	{field: FieldStatus, kind: kindText, width: 255},
	{field: FieldFromIP, kind: kindText, width: 64, index: "fromip_idx"},
	{field: FieldToIP, kind: kindText, width: 64},
	{field: FieldFromTag, kind: kindText, width: 128},
	{field: FieldToTag, kind: kindText, width: 128},
	{field: FieldDirection, kind: kindText, width: 4},
}

// indexOrder is the order in which Kamailio's script makes the indexes.
var indexOrder = [...]Field{FieldTracedUser, FieldTime, FieldFromIP, FieldCallID}
