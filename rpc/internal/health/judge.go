package health

// sameResults is how many results in a row have to differ from what is believed until it changes. A
// check that fails now and then would move the instance in and out of its queue groups.
const sameResults = 3

// judge believes the results of a check when enough of them agree.
type judge struct {
	err     error // what is believed; nil is healthy
	differs int   // results in a row that say otherwise
}

// take takes a result. The reason for an instance that is unhealthy already is the newest one.
func (j *judge) take(err error) {
	switch {
	case (err == nil) == (j.err == nil):
		j.differs = 0
	case j.differs+1 < sameResults:
		j.differs++
		return
	default:
		j.differs = 0
	}
	j.err = err
}
