package small

func (c counter) tested() {} // too wide ---------------------------------------------------------------
