package ibmvio

func  f( ) { }
