package siptrace

// Columns are the names of the table's columns that the *_column parameters
// set. The module has no parameter for id and time_us.
type Columns struct {
	Date, CallID, TracedUser, Msg, Method, Status, FromIP, ToIP, FromTag, ToTag, Direction string
}

// DefaultColumns are the names of Kamailio's siptrace-create.sql.
func DefaultColumns() Columns {
	return Columns{
		Date: "time_stamp", CallID: "callid", TracedUser: "traced_user", Msg: "msg", Method: "method",
		Status: "status", FromIP: "fromip", ToIP: "toip", FromTag: "fromtag", ToTag: "totag", Direction: "direction",
	}
}
