from tests import typechecks as typechecks
