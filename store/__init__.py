"""Where it is kept: the engine interface, engines, one repository per aggregate."""
